"""Training: the jitted loop, runs and their folders, progress."""

from foretrace.training._job import Job, Optional, Settings, job
from foretrace.training._lock import RunError, lock
from foretrace.training._loop import Carry, Metrics, Streams, Trainer, period, trainer
from foretrace.training._progress import Reporter
from foretrace.training._run import (
    append_json,
    chunks_for,
    create_folder,
    run,
    write_json,
)
from foretrace.training._signals import Stop

__all__ = [
    "Carry",
    "Job",
    "Metrics",
    "Optional",
    "Reporter",
    "RunError",
    "Settings",
    "Stop",
    "Streams",
    "Trainer",
    "append_json",
    "chunks_for",
    "create_folder",
    "job",
    "lock",
    "period",
    "run",
    "trainer",
    "write_json",
]
