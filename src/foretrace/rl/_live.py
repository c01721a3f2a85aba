"""The driver: chunk after chunk of a life, and a record of each."""

import time
from collections.abc import Iterator
from typing import Any

import jax

from foretrace._xla import jit_unoptimised, with_new_keys
from foretrace.rl._life import Life, Living
from foretrace.training import NonFiniteError, all_finite, floats


def live(
    living: Living, key: Any, chunks: int, *, start: tuple[Life, dict[str, Any]] | None = None
) -> Iterator[tuple[Life, dict[str, Any]]]:
    """Lives for a number of chunks.

    Args:
        living: agent and environment.
        key: typed PRNG key.
        chunks: number of chunks of the whole life.
        start: the life and the record to go on from; the beginning unless given.

    Yields:
        The start, then life and record after every chunk: `step` (calls of the agent so far), `seconds`
        (so far, without compilation), the loss under its name, `episodes` that ended in this chunk, and
        of them, or of the last ones before, `return` and `success`, if there are any.

    Raises:
        NonFiniteError: a number was not finite, and not to be skipped.
    """
    life, last = start or (jit_unoptimised(living.init)(key), {"step": 0, "seconds": 0.0})
    yield life, last
    if last["step"] == chunks * living.steps:
        return
    # Not donated: where a chunk fails, the life before it is what to go on from.
    compiled = jax.jit(living.chunk).lower(with_new_keys(life)).compile()
    seconds, names = last["seconds"], {metric.name for metric in living.shown}
    for index in range(last["step"] // living.steps, chunks):
        begin = time.perf_counter()
        life, loss, tally = compiled(with_new_keys(life))
        loss, tally = jax.device_get((loss, tally))
        seconds += time.perf_counter() - begin
        _refuse_nonfinite(living, life, tally, index * living.steps)
        record: dict[str, Any] = {"step": (index + 1) * living.steps, "seconds": round(seconds, 3)}
        record |= {living.loss_metric.name: float(loss), "episodes": int(tally.episodes)}
        brought = {"return": tally.earned, "success": tally.successes}
        for name in brought.keys() & names:
            if tally.episodes:
                record[name] = float(brought[name] / tally.episodes)
            elif name in last:
                record[name] = last[name]
        if living.skip:
            record["skipped"] = int(tally.skipped)
        yield life, record
        last = record


def _refuse_nonfinite(living: Living, life: Life, tally: Any, first: int) -> None:
    """Raises NonFiniteError where the world or the agent has a number that is not finite."""
    after = f"got one that is not within {living.steps:,} steps from step {first:,}"
    if tally.skipped and not living.skip:
        raise NonFiniteError(
            f"rewards and observations must be finite; {after}; mend the environment, or skip what is not "
            "finite."
        )
    if not all_finite(floats(life.agent)):
        raise NonFiniteError(
            f"parameters, traces and influence must be finite; {after}; begin anew with another step rule, "
            "a smaller rate or a larger kappa."
        )
