"""Training: the jitted loop, runs and their folders, progress."""

from foretrace.training._evaluate import evaluation
from foretrace.training._job import Job, Optional, Settings, features, job
from foretrace.training._lock import RunError, lock
from foretrace.training._loop import Carry, Metrics, Streams, Trainer, period, predict, trainer
from foretrace.training._progress import Reporter
from foretrace.training._run import (
    Measure,
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
    "Measure",
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
    "evaluation",
    "features",
    "job",
    "lock",
    "period",
    "predict",
    "run",
    "trainer",
    "write_json",
]
