"""Intervals calibrated online to a coverage, and how unusual the last error was.

Own code beside `river.conf`, because it must run inside the jitted step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from foretrace.stream._scale import mean_size

_LAST = 1000  # errors that an error is compared with
_RATE = 0.1  # step of a quantile
_MEMORY = 100.0  # errors over which their mean size is taken


class Interval(NamedTuple):
    """Errors of several forecasts side by side.

    Attributes:
        quantiles: (forecasts, 2), below and above the forecast in units of `size`.
        size: (forecasts,), running mean of the absolute error.
        total: (forecasts,), errors so far.
        covered: (forecasts,), of those inside the interval.
        past: (1000,), the absolute errors of the first forecast, newest first; infinite where none was.
        tail: share of them that were at least as large as the last one; 1 before there is one.
    """

    quantiles: jax.Array
    size: jax.Array
    total: jax.Array
    covered: jax.Array
    past: jax.Array
    tail: jax.Array


def init(forecasts: int) -> Interval:
    """Intervals without width, before the first error."""
    zeros = jnp.zeros(forecasts)
    return Interval(jnp.zeros((forecasts, 2)), zeros, zeros, zeros, jnp.full(_LAST, jnp.inf), jnp.ones(()))


def update(state: Interval, errors: jax.Array, coverage: float) -> Interval:
    """Adds errors, truth - forecast, (forecasts,), without those that are not finite.

        upper <- upper + eta (1[error > upper] - (1 - coverage) / 2),   lower alike        (1)

    in units of the mean absolute error of late; eta falls from 1 as 10 / t to a tenth.

    Exactness: over T errors the share outside differs from 1 - coverage by O(1 / (eta T)), for any stream.

    Source:
        Angelopoulos, Candes, Tibshirani, Conformal PID control for time series prediction, NeurIPS 2023,
        equation 4, for each side; the unit is ours, so that intervals narrow as fast as errors do.
    """
    finite = jnp.isfinite(errors)
    errors = jnp.where(finite, errors, 0)
    lower, upper = bounds(state).T
    inside = (errors >= lower) & (errors <= upper)
    below, above = state.quantiles.T
    rate = jnp.maximum(_RATE, 1 / (1 + state.total / 10))
    miss = (1 - coverage) / 2
    above = above + rate * (_float(errors > upper) - miss)  # (1)
    below = below - rate * (_float(errors < lower) - miss)
    quantiles = jnp.where(finite[:, None], jnp.stack([below, above], axis=1), state.quantiles)
    size = jnp.where(finite, mean_size(state.size, state.total, errors, _MEMORY), state.size)
    first = abs(errors[0])
    # Half of a tie counts, as for any p-value that is to be uniform.
    larger = _float((state.past > first) & (state.past < jnp.inf)) + 0.5 * _float(state.past == first)
    tail = (jnp.sum(larger) + 1) / (jnp.minimum(state.total[0], _LAST) + 1)
    past = jnp.where(finite[0], jnp.concatenate([first[None], state.past[:-1]]), state.past)
    return Interval(
        quantiles,
        size,
        state.total + _float(finite),
        state.covered + _float(finite & inside),
        past,
        jnp.where(finite[0], tail, state.tail),
    )


def bounds(state: Interval) -> jax.Array:
    """How far the intervals reach below and above the forecasts, (forecasts, 2)."""
    return state.size[:, None] * state.quantiles


def _float(flags: jax.Array) -> jax.Array:
    return flags.astype(float)
