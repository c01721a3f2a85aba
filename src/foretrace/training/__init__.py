"""Training: the jitted loop, runs and their folders, progress."""

from foretrace.training._evaluate import evaluation
from foretrace.training._folder import Rhythm, RunFolder, claim, read_config
from foretrace.training._guard import guarded
from foretrace.training._job import Job, Optional, Settings, features, job
from foretrace.training._lock import RunError, lock
from foretrace.training._loop import Carry, Metrics, Streams, Trainer, period, predict, trainer
from foretrace.training._progress import Reporter
from foretrace.training._run import (
    Measure,
    advance,
    append_json,
    chunks_for,
    create_folder,
    run,
    versions,
    write_json,
)
from foretrace.training._signals import Stop
from foretrace.training._watch import InfluenceWarning, NonFiniteError, Watch
from foretrace.training._writers import TensorBoard, WeightsAndBiases, Writer, scalars

__all__ = [
    "Carry",
    "InfluenceWarning",
    "Job",
    "Measure",
    "Metrics",
    "NonFiniteError",
    "Optional",
    "Reporter",
    "Rhythm",
    "RunError",
    "RunFolder",
    "Settings",
    "Stop",
    "Streams",
    "TensorBoard",
    "Trainer",
    "Watch",
    "WeightsAndBiases",
    "Writer",
    "advance",
    "append_json",
    "chunks_for",
    "claim",
    "create_folder",
    "evaluation",
    "features",
    "guarded",
    "job",
    "lock",
    "period",
    "predict",
    "read_config",
    "run",
    "scalars",
    "trainer",
    "versions",
    "write_json",
]
