"""How is it trained? The jitted loop, its guard, evaluation and the driver of chunks."""

from foretrace.training._driver import advance, chunks_for, run
from foretrace.training._evaluate import evaluation
from foretrace.training._guard import all_finite, floats, guarded
from foretrace.training._loop import Carry, Metrics, Streams, Trainer, period, predict, trainer
from foretrace.training._watch import CheckedChunk, InfluenceWarning, NonFiniteError

__all__ = [
    "Carry",
    "CheckedChunk",
    "InfluenceWarning",
    "Metrics",
    "NonFiniteError",
    "Streams",
    "Trainer",
    "advance",
    "all_finite",
    "chunks_for",
    "evaluation",
    "floats",
    "guarded",
    "period",
    "predict",
    "run",
    "trainer",
]
