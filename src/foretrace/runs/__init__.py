"""A process and a disk: the run folder, its lock and checkpoints, stop signals, writers and progress."""

from foretrace.runs._folder import (
    Rhythm,
    RunFolder,
    append_json,
    claim,
    create_folder,
    read_config,
    versions,
    write_json,
)
from foretrace.runs._lock import RunError, lock
from foretrace.runs._progress import Reporter
from foretrace.runs._signals import Stop
from foretrace.runs._writers import TensorBoard, WeightsAndBiases, Writer, scalars

__all__ = [
    "Reporter",
    "Rhythm",
    "RunError",
    "RunFolder",
    "Stop",
    "TensorBoard",
    "WeightsAndBiases",
    "Writer",
    "append_json",
    "claim",
    "create_folder",
    "lock",
    "read_config",
    "scalars",
    "versions",
    "write_json",
]
