"""Intervals calibrated online to a coverage, and how unusual the last error was.

Own code beside `river.conf`, because it must run inside the jitted step.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import jax
import jax.numpy as jnp

from foretrace.stream._scale import mean_size

_LAST = 1000  # errors that an error is compared with
_RATE = 0.1  # step of a quantile
_MEMORY = 100.0  # errors over which their mean size is taken
_LEAST = 2  # errors from which on there is an interval
_NARROWEST = 0.01  # least distance of a bound from the forecast, in units of the mean absolute error


class Interval(NamedTuple):
    """Errors of several forecasts side by side.

    Attributes:
        quantiles: (forecasts, 2), below and above the forecast in units of `size`.
        size: (forecasts,), running mean of the absolute error.
        total: (forecasts,), errors so far.
        past: (1000,), the absolute errors of the first forecast, newest first; infinite where none was.
        tail: share of them that were at least as large as the last one; 1 before there is one.
    """

    quantiles: jax.Array
    size: jax.Array
    total: jax.Array
    past: jax.Array
    tail: jax.Array


def init(forecasts: int, coverage: float) -> Interval:
    """The quantiles of normal errors, before the first error."""
    # Of normal errors, the mean absolute one is sqrt(2 / pi) standard deviations.
    quantile = NormalDist().inv_cdf((1 + coverage) / 2) * math.sqrt(math.pi / 2)
    quantiles = jnp.tile(jnp.array([-quantile, quantile]), (forecasts, 1))
    zeros = jnp.zeros(forecasts)
    return Interval(quantiles, zeros, zeros, jnp.full(_LAST, jnp.inf), jnp.ones(()))


def update(state: Interval, errors: jax.Array, coverage: float, reported: jax.Array) -> Interval:
    """Adds errors, truth - forecast, (forecasts,), without those that are not finite.

        upper <- max(upper + eta (1[error > reported upper] - (1 - coverage) / 2), 0.01)        (1)

    lower alike, in units of the mean absolute error of late. For the forecast h steps ahead, eta falls from
    1 as 10 / t to a tenth, divided by sqrt(h): its error arrives h steps late.

    Exactness: over T errors the share outside exceeds 1 - coverage by at most O(1 / (eta T)) for any
    stream. It is the share outside the intervals as they were reported: those of the moment of the error
    would follow a burst of errors that the reported ones missed.

    Args:
        state: errors so far.
        errors: (forecasts,), the h-th of a forecast h steps ahead.
        coverage: share of the errors that the intervals shall hold.
        reported: `offsets` at the time of the forecasts.

    Source:
        Angelopoulos, Candes, Tibshirani, Conformal PID control for time series prediction, NeurIPS 2023,
        equation 4, for each side; ours are the unit, so that intervals narrow as fast as errors do, and the
        bound 0.01, so that every forecast lies inside its interval.
    """
    finite = jnp.isfinite(errors)
    errors = jnp.where(finite, errors, 0)
    reported = jnp.where(jnp.isfinite(reported), reported, state.size[:, None] * state.quantiles)
    lower, upper = reported.T
    below, above = state.quantiles.T
    steps = jnp.sqrt(jnp.arange(1, len(errors) + 1).astype(errors.dtype))
    rate = jnp.maximum(_RATE, 1 / (1 + state.total / 10)) / steps
    miss = (1 - coverage) / 2
    above = jnp.maximum(above + rate * (_float(errors > upper) - miss), _NARROWEST)  # (1)
    below = jnp.minimum(below - rate * (_float(errors < lower) - miss), -_NARROWEST)
    quantiles = jnp.where(finite[:, None], jnp.stack([below, above], axis=1), state.quantiles)
    size = jnp.where(finite, mean_size(state.size, state.total, errors, _MEMORY), state.size)
    first = abs(errors[0])
    # Half of a tie counts, as for any p-value that is to be uniform.
    larger = _float((state.past > first) & (state.past < jnp.inf)) + 0.5 * _float(state.past == first)
    tail = (jnp.sum(larger) + 1) / (jnp.minimum(state.total[0], _LAST) + 1)
    past = jnp.where(finite[0], jnp.concatenate([first[None], state.past[:-1]]), state.past)
    return Interval(
        quantiles, size, state.total + _float(finite), past, jnp.where(finite[0], tail, state.tail)
    )


def offsets(state: Interval) -> jax.Array:
    """Distances of the bounds from the forecasts, (forecasts, 2); infinite at first."""
    is_known = state.total[:, None] >= _LEAST
    unknown = jnp.array([[-jnp.inf, jnp.inf]])
    return jnp.where(is_known, state.size[:, None] * state.quantiles, unknown)


def _float(flags: jax.Array) -> jax.Array:
    return flags.astype(float)
