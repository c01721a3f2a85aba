"""Runs: chunk after chunk of a trainer, and the folder that keeps what they show."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from foretrace._xla import jit_unoptimised, map_sequentially
from foretrace.training._loop import Carry, Trainer
from foretrace.training._watch import CheckedChunk


class Measure(NamedTuple):
    """Something to measure beside the loss, such as the loss on other data.

    Attributes:
        name: its name in the records.
        of: `(params) -> scalar`, of the trainer's parameters.
        every: about how many time steps from one measurement to the next; the end is always measured.
    """

    name: str
    of: Callable[[Any], Any]
    every: int


def run(
    trainer: Trainer,
    key: Any,
    chunks: int,
    measures: Sequence[Measure] = (),
) -> Iterator[dict[str, Any]]:
    """Trains for a number of chunks and yields what each one shows, ready for JSON.

    Args:
        trainer: what to run.
        key: a typed key, or an array of them: then all seeds train side by side.
        chunks: number of chunks.
        measures: what else to measure now and then.

    Yields:
        A dict with `step` (time steps so far), `seconds` (so far, without compilation and measuring), the
        loss under its name, the task's metrics at the end of the chunk, `gradient_norm`, `info` and what
        was measured. With a curriculum `T`, `raised` has a pair for every rise: the
        new T, and the step at whose period's end it stood. With an array of keys, every measured value is
        a list with one entry per seed.
    """
    for _, record in itertools.islice(advance(trainer, key, chunks, measures), 1, None):
        yield record


def advance(
    trainer: Trainer,
    key: Any,
    chunks: int,
    measures: Sequence[Measure] = (),
    *,
    start: tuple[Carry, dict[str, Any]] | None = None,
    watch: CheckedChunk | None = None,
    jit: Callable = jax.jit,
) -> Iterator[tuple[Carry, dict[str, Any]]]:
    """Trains as `run` does, from any carry, and yields what to go on from too.

    Args:
        trainer: as for `run`.
        key: as for `run`.
        chunks: number of chunks of the whole run.
        measures: as for `run`.
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
        measures = [one._replace(of=jax.vmap(one.of)) for one in measures]
    carry, last = start or (jit_unoptimised(init)(key), {"step": 0, "seconds": 0.0})
    yield carry, last
    if last["step"] == chunks * trainer.steps:
        return
    if watch:
        watch.compile(carry)
        go_on = watch
    else:
        compiled = jit(chunk, donate_argnums=0).lower(carry).compile()

        def go_on(carry, first, last):
            carry, metrics = compiled(carry)
            return carry, jax.device_get(metrics), {}

    measures = [one._replace(of=jax.jit(one.of)) for one in measures]
    height, seconds = last.get("T", np.ones(seeds, int)), last["seconds"]
    for index in range(last["step"] // trainer.steps, chunks):
        begin = time.perf_counter()
        first = index * trainer.steps
        carry, metrics, found = go_on(carry, first, last)
        seconds += time.perf_counter() - begin
        record: dict[str, Any] = {
            "step": first + trainer.steps,
            "seconds": round(seconds, 3),
            trainer.task.loss.name: metrics.loss.tolist(),
        }
        record |= {name: values[..., -1].tolist() for name, values in metrics.task.items()}
        if "T" in metrics.task:
            curriculum = metrics.task["T"]
            rows = zip(
                np.reshape(height, -1).tolist(), curriculum.reshape(-1, curriculum.shape[-1]), strict=True
            )
            raised = [_raises(*row, first, trainer.period) for row in rows]
            height = curriculum[..., -1]
            record["raised"] = raised if seeds else raised[0]
        record["gradient_norm"] = metrics.gradient_norm.tolist()
        record["info"] = {name: value.tolist() for name, value in metrics.info.items()}
        record |= found
        for one in measures:
            if (index + 1) % max(1, one.every // trainer.steps) == 0 or index + 1 == chunks:
                record[one.name] = np.asarray(one.of(carry.params)).tolist()
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


def _raises(before: int, curriculum: Any, first: int, period: int) -> list[list[int]]:
    """Pairs [T, step] where the curriculum rose."""
    previous = np.concatenate([[before], curriculum[:-1]])
    return [
        [int(curriculum[i]), first + (i + 1) * period]
        for i in np.flatnonzero(curriculum > previous).tolist()
    ]
