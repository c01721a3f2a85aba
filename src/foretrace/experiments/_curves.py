"""Learning curves: all seeds of one learner side by side."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from foretrace._once import briefly, once
from foretrace.training import Trainer

_FEW = 20_000  # steps; with fewer of them to compile takes longer than to run


class Curves(NamedTuple):
    """What training showed, chunk by chunk.

    Attributes:
        steps: time steps at the end of each chunk, (chunks,).
        loss: as the task shows it, mean over a chunk, (seeds, chunks).
        task: the task's metrics at the end of each chunk, (seeds, chunks).
        carry: parameters and all else at the end, with a leading axis of seeds.
    """

    steps: np.ndarray
    loss: np.ndarray
    task: dict[str, np.ndarray]
    carry: Any


def curves(
    made: Trainer, seeds: int, chunks: int, watch: Callable[[int, Any], None] = lambda step, carry: None
) -> Curves:
    """Trains all seeds and keeps their curves.

    Args:
        made: the training loop.
        seeds: how many.
        chunks: how many dispatches of `made.steps` time steps.
        watch: called with the time step and the carry after every chunk.
    """
    keys = jax.random.split(jax.random.key(0), seeds)
    carry = once(jax.vmap(made.init))(keys)
    compiled = briefly if made.steps * chunks < _FEW else jax.jit
    chunk = compiled(jax.vmap(made.chunk), donate_argnums=0)
    seen = []
    for index in range(chunks):
        carry, metrics = chunk(carry)
        last = {name: np.asarray(value)[:, -1] for name, value in metrics.task.items()}
        seen.append((np.asarray(metrics.loss), last))
        watch((index + 1) * made.steps, carry)
    return Curves(
        steps=made.steps * np.arange(1, chunks + 1),
        loss=np.stack([loss for loss, _ in seen], axis=1),
        task={name: np.stack([last[name] for _, last in seen], axis=1) for name in seen[0][1]},
        carry=carry,
    )
