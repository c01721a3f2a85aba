"""Intervals that cover as often as they promise, and how unusual the last error was."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from foretrace.stream._scale import size

_LAST = 1000  # errors that an error is compared with
_RATE = 0.1  # step of a quantile, in mean absolute errors


class Interval(NamedTuple):
    """What is known of the errors of several forecasts side by side.

    Attributes:
        bounds: (forecasts, 2), below and above the forecast.
        size: (forecasts,), running mean of the absolute error.
        seen: (forecasts,), errors seen.
        covered: (forecasts,), of those inside the interval.
        past: (1000,), the absolute errors of the first forecast, newest first; infinite where none was.
        tail: share of them that were at least as large as the last one; 1 before there is one.
    """

    bounds: jax.Array
    size: jax.Array
    seen: jax.Array
    covered: jax.Array
    past: jax.Array
    tail: jax.Array


def interval(forecasts: int) -> Interval:
    """Nothing is known."""
    zeros = jnp.zeros(forecasts)
    return Interval(jnp.zeros((forecasts, 2)), zeros, zeros, zeros, jnp.full(_LAST, jnp.inf), jnp.ones(()))


def observe(known: Interval, errors: jax.Array, coverage: float) -> Interval:
    """The intervals after errors, truth - forecast, (forecasts,); those that are not finite are left out.

        upper <- upper + eta (1[error > upper] - (1 - coverage) / 2),   lower alike        (1)

    eta is the mean absolute error at first, falling as 10 / t to a tenth of it.

    Exactness: over T errors the share outside differs from 1 - coverage by O(1 / (eta T)), whatever comes.

    Source:
        Angelopoulos, Candes, Tibshirani, Conformal PID control for time series prediction, NeurIPS 2023,
        equation 4, for each side.
    """
    given = jnp.isfinite(errors)
    errors = jnp.where(given, errors, 0)
    lower, upper = known.bounds[:, 0], known.bounds[:, 1]
    inside = (errors >= lower) & (errors <= upper)
    unit = jnp.where(given, size(known.size, known.seen, errors), known.size)
    rate = unit * jnp.maximum(_RATE, 1 / (1 + known.seen / 10))
    miss = (1 - coverage) / 2
    above = upper + rate * ((errors > upper).astype(unit.dtype) - miss)  # (1)
    below = lower - rate * ((errors < lower).astype(unit.dtype) - miss)
    bounds = jnp.where(given[:, None], jnp.stack([below, above], axis=1), known.bounds)
    first = abs(errors[0])
    # Half of a tie counts, as for any p-value that is to be uniform.
    larger = _count((known.past > first) & (known.past < jnp.inf)) + 0.5 * _count(known.past == first)
    tail = (larger + 1) / (jnp.minimum(known.seen[0], _LAST) + 1)
    past = jnp.where(given[0], jnp.concatenate([first[None], known.past[:-1]]), known.past)
    return Interval(
        bounds,
        unit,
        known.seen + given.astype(unit.dtype),
        known.covered + (given & inside).astype(unit.dtype),
        past,
        jnp.where(given[0], tail, known.tail),
    )


def _count(flags: jax.Array) -> jax.Array:
    return jnp.sum(flags.astype(float))
