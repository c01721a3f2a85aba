"""Intervals that cover as often as they promise, and how unusual the last error was."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from foretrace.stream._scale import size

_LAST = 1000  # errors that an error is compared with
_RATE = 0.1  # step of a quantile
_MEMORY = 100.0  # errors over which their size is known


class Interval(NamedTuple):
    """What is known of the errors of several forecasts side by side.

    Attributes:
        quantiles: (forecasts, 2), below and above the forecast in units of `size`.
        size: (forecasts,), running mean of the absolute error.
        seen: (forecasts,), errors seen.
        covered: (forecasts,), of those inside the interval.
        past: (1000,), the absolute errors of the first forecast, newest first; infinite where none was.
        tail: share of them that were at least as large as the last one; 1 before there is one.
    """

    quantiles: jax.Array
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

    in units of the mean absolute error of late; eta falls from 1 as 10 / t to a tenth.

    Exactness: over T errors the share outside differs from 1 - coverage by O(1 / (eta T)), whatever comes.

    Source:
        Angelopoulos, Candes, Tibshirani, Conformal PID control for time series prediction, NeurIPS 2023,
        equation 4, for each side; the unit is ours, so that intervals narrow as fast as errors do.
    """
    given = jnp.isfinite(errors)
    errors = jnp.where(given, errors, 0)
    lower, upper = bounds(known).T
    inside = (errors >= lower) & (errors <= upper)
    below, above = known.quantiles.T
    rate = jnp.maximum(_RATE, 1 / (1 + known.seen / 10))
    miss = (1 - coverage) / 2
    above = above + rate * (_float(errors > upper) - miss)  # (1)
    below = below - rate * (_float(errors < lower) - miss)
    quantiles = jnp.where(given[:, None], jnp.stack([below, above], axis=1), known.quantiles)
    unit = jnp.where(given, size(known.size, known.seen, errors, _MEMORY), known.size)
    first = abs(errors[0])
    # Half of a tie counts, as for any p-value that is to be uniform.
    larger = _float((known.past > first) & (known.past < jnp.inf)) + 0.5 * _float(known.past == first)
    tail = (jnp.sum(larger) + 1) / (jnp.minimum(known.seen[0], _LAST) + 1)
    past = jnp.where(given[0], jnp.concatenate([first[None], known.past[:-1]]), known.past)
    return Interval(
        quantiles,
        unit,
        known.seen + _float(given),
        known.covered + _float(given & inside),
        past,
        jnp.where(given[0], tail, known.tail),
    )


def bounds(known: Interval) -> jax.Array:
    """How far the intervals reach below and above the forecasts, (forecasts, 2)."""
    return known.size[:, None] * known.quantiles


def _float(flags: jax.Array) -> jax.Array:
    return flags.astype(float)
