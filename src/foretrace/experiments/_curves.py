"""Learning curves: all seeds of one learner side by side."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from foretrace._xla import jit_fast_compile, map_sequentially
from foretrace.runs._resumable import Progress
from foretrace.training import Trainer, advance

_FEW = 20_000  # steps; with fewer of them to compile takes longer than to run


class Curves(NamedTuple):
    """Values after every chunk of a training.

    Attributes:
        steps: time steps at the end of each chunk, (chunks,).
        values: by name, (seeds, chunks): the loss, as the task shows it and mean over a chunk; the task's
            metrics at the end of each chunk; "watched", if something was.
        carry: parameters and all else at the end, with a leading axis of seeds.
    """

    steps: np.ndarray
    values: dict[str, np.ndarray]
    carry: Any


def curves(
    trainer: Trainer,
    seeds: int,
    chunks: int,
    progress: Progress,
    watch: Callable[[int, Any], Any] | None = None,
) -> Curves:
    """Trains all seeds and keeps their curves.

    Args:
        trainer: the training loop.
        seeds: number of seeds.
        chunks: number of dispatches of `trainer.steps` time steps.
        progress: keeps an unfinished training, which the next attempt continues.
        watch: called with the time step and the carry after every chunk; returns a number per seed.
    """
    keys = jax.random.split(jax.random.key(0), seeds)
    earlier = progress.load(jax.eval_shape(partial(map_sequentially, trainer.init), keys))
    records: list[dict[str, Any]] = earlier[1] if earlier else []
    training = advance(
        trainer,
        keys,
        chunks,
        start=(earlier[0], records[-1]) if earlier else None,
        jit=jit_fast_compile if trainer.steps * chunks < _FEW else jax.jit,
    )
    carry, _ = next(training)
    for carry, record in training:
        if watch:
            record["watched"] = np.asarray(watch(record["step"], carry)).tolist()
        records.append(record)
        progress.keep(carry, records)
    per_seed = records[0].keys() - {"step", "seconds", "raised", "info"}
    return Curves(
        steps=np.array([record["step"] for record in records]),
        values={name: np.transpose([record[name] for record in records]) for name in per_seed},
        carry=carry,
    )
