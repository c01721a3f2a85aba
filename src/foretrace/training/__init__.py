"""Training: the jitted loop, run folders and progress."""

from foretrace.training._loop import Carry, Metrics, Streams, Trainer, period, trainer

__all__ = ["Carry", "Metrics", "Streams", "Trainer", "period", "trainer"]
