"""The driver: chunk after chunk of a trainer, and a record of each."""

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from foretrace._xla import jit_unoptimised, map_sequentially
from foretrace.training._loop import Carry, Trainer
from foretrace.training._watch import CheckedChunk


def run(trainer: Trainer, key: Any, chunks: int) -> Iterator[dict[str, Any]]:
    """Trains for a number of chunks and yields a record of each, ready for JSON.

    Args:
        trainer: the training loop.
        key: a typed key, or an array of them: then all seeds train side by side.
        chunks: number of chunks.

    Yields:
        A dict with `step` (time steps so far), `seconds` (so far, without compilation and measuring), the
        loss under its name, the task's metrics at the end of the chunk, `gradient_norm`, `info` and, where
        they are due, the metrics that the task measures of the parameters. `raised` has for each
        curriculum, by its name, a pair for every rise: the new level, and the step at whose period's end it
        was reached. With an array of keys, every value is a list with one entry per seed.
    """
    for _, record in itertools.islice(advance(trainer, key, chunks), 1, None):
        yield record


def advance(
    trainer: Trainer,
    key: Any,
    chunks: int,
    *,
    start: tuple[Carry, dict[str, Any]] | None = None,
    watch: CheckedChunk | None = None,
    jit: Callable = jax.jit,
) -> Iterator[tuple[Carry, dict[str, Any]]]:
    """Trains as `run` does, from any carry, and yields the carries too.

    Args:
        trainer: as for `run`.
        key: as for `run`.
        chunks: number of chunks of the whole run.
        start: the carry and the record to go on from; the beginning unless given.
        watch: runs the chunks and looks at them; for one key.
        jit: compiles the chunks where there is no `watch`.

    Yields:
        The start, then carry and record after every chunk. Without `watch` a carry is gone when the next
        one is asked for.

    Raises:
        NonFiniteError: by `watch`.
    """
    seeds = np.shape(key)
    init, chunk = trainer.init, trainer.chunk
    if seeds:
        init, chunk = partial(map_sequentially, init), jax.vmap(chunk)
    carry, last = start or (jit_unoptimised(init)(key), {"step": 0, "seconds": 0.0})
    yield carry, last
    if last["step"] == chunks * trainer.steps:
        return
    if watch:
        watch.compile(carry)
        advance_by_one = watch
    else:
        compiled = jit(chunk, donate_argnums=0).lower(carry).compile()

        def advance_by_one(carry, first, last):
            carry, metrics = compiled(carry)
            return carry, jax.device_get(metrics), {}

    shown = trainer.task.shown
    measures = [(m, jax.jit(jax.vmap(m.of) if seeds else m.of)) for m in shown if m.of]
    levels = {m.name: last.get(m.name, np.full(seeds, m.start)) for m in shown if m.start is not None}
    seconds = last["seconds"]
    for index in range(last["step"] // trainer.steps, chunks):
        begin = time.perf_counter()
        first = index * trainer.steps
        carry, metrics, checks = advance_by_one(carry, first, last)
        seconds += time.perf_counter() - begin
        record: dict[str, Any] = {
            "step": first + trainer.steps,
            "seconds": round(seconds, 3),
            trainer.task.loss.name: metrics.loss.tolist(),
        }
        record |= {name: values[..., -1].tolist() for name, values in metrics.task.items()}
        for name, level in levels.items():
            values = metrics.task[name]
            rows = zip(np.reshape(level, -1).tolist(), values.reshape(-1, values.shape[-1]), strict=True)
            rises = [_rises(*row, first, trainer.period) for row in rows]
            record.setdefault("raised", {})[name] = rises if seeds else rises[0]
            levels[name] = values[..., -1]
        record["gradient_norm"] = metrics.gradient_norm.tolist()
        record["info"] = {name: value.tolist() for name, value in metrics.info.items()}
        record |= checks
        for metric, measure in measures:
            if (index + 1) % max(1, metric.every // trainer.steps) == 0 or index + 1 == chunks:
                record[metric.name] = np.asarray(measure(carry.params)).tolist()
        yield carry, record
        last = record


def chunks_for(steps: int, period: int, about: int) -> tuple[int, int]:
    """How to cut `steps` into equal chunks of about `about` steps, all multiples of `period`.

    Returns:
        Steps per chunk and number of chunks; together at least `steps`, and no more than needed.
    """
    periods = -(-steps // period)
    wanted = max(1, min(periods, about // period))

    def waste(size):
        return -(-periods // size) * size - periods, abs(size - wanted)

    size = min(range(max(1, wanted // 2), min(periods, 2 * wanted) + 1), key=waste)
    return size * period, -(-periods // size)


def _rises(before: int, levels: Any, first: int, period: int) -> list[list[int]]:
    """Pairs [level, step] where a curriculum rose."""
    previous = np.concatenate([[before], levels[:-1]])
    return [[int(levels[i]), first + (i + 1) * period] for i in np.flatnonzero(levels > previous).tolist()]
