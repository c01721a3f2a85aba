"""Learning curves: all seeds of one learner side by side."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from foretrace._xla import jit_fast_compile, jit_unoptimised, map_sequentially
from foretrace.runs._resumable import Progress
from foretrace.training import Trainer

_FEW = 20_000  # steps; with fewer of them to compile takes longer than to run


class Curves(NamedTuple):
    """What training showed, chunk by chunk.

    Attributes:
        steps: time steps at the end of each chunk, (chunks,).
        loss: as the task shows it, mean over a chunk, (seeds, chunks).
        task: the task's metrics at the end of each chunk, (seeds, chunks).
        watched: what `watch` gave at the end of each chunk, (seeds, chunks).
        carry: parameters and all else at the end, with a leading axis of seeds.
    """

    steps: np.ndarray
    loss: np.ndarray
    task: dict[str, np.ndarray]
    watched: np.ndarray
    carry: Any


def curves(
    made: Trainer,
    seeds: int,
    chunks: int,
    progress: Progress,
    watch: Callable[[int, Any], Any] = lambda step, carry: (),
) -> Curves:
    """Trains all seeds and keeps their curves.

    Args:
        made: the training loop.
        seeds: how many.
        chunks: how many dispatches of `made.steps` time steps.
        progress: where it goes on, and where how far it is goes.
        watch: called with the time step and the carry after every chunk; gives a number per seed.
    """
    keys, init = jax.random.split(jax.random.key(0), seeds), partial(map_sequentially, made.init)
    carry, seen = progress.load(jax.eval_shape(init, keys)) or (jit_unoptimised(init)(keys), [])
    compiled = jit_fast_compile if made.steps * chunks < _FEW else jax.jit
    chunk = compiled(jax.vmap(made.chunk), donate_argnums=0)
    while len(seen) < chunks:
        carry, metrics = chunk(carry)
        watched = watch((len(seen) + 1) * made.steps, carry)
        last = {name: np.asarray(value)[:, -1].tolist() for name, value in metrics.task.items()}
        seen.append([np.asarray(metrics.loss).tolist(), last, np.asarray(watched).tolist()])
        progress.keep(carry, seen)
    loss, task, watched = zip(*seen, strict=True)
    return Curves(
        steps=made.steps * np.arange(1, chunks + 1),
        loss=np.transpose(loss),
        task={name: np.transpose([last[name] for last in task]) for name in task[0]},
        watched=np.transpose(watched),
        carry=carry,
    )
