"""A regression on few inputs for each time ahead: last changes, what seasons say of that time, waves.

The readouts that share their inputs have a hundred and more of them. This one has 29, needs fewer rows, and
may take a part of what a season says, or more than all of it where a stream grows.
"""

import jax
import jax.numpy as jnp
import numpy as np

from foretrace.stream import _calendar, _least_squares
from foretrace.stream._least_squares import LeastSquares
from foretrace.stream._values import MOST

PRIOR = 0.03  # variance of the weights at first
_LAGS = 12
_WAVES = 8, 4  # numbers of the short and of the long season


def init(horizon: int, lags: int) -> LeastSquares:
    """Predicts no change, at any of H times ahead, from so many changes at most."""
    inputs = len(_place_of_seasons(lags))
    return _least_squares.init(horizon, inputs, shared=False, prior=PRIOR)


def inputs(
    lags: jax.Array, baselines: jax.Array, last: jax.Array, unit: jax.Array, phases: jax.Array
) -> jax.Array:
    """Inputs, (H, n).

    Args:
        lags: the last changes in units of their mean size, newest first.
        baselines: (H, 4), what the short and the long season say of each time ahead.
        last: the last value.
        unit: (H,), mean size of a change over so many rows.
        phases: share of the short and the long season that has passed, (3,).
    """
    horizon = len(unit)
    waves = _calendar.waves(phases, has_calendar=False)
    same = jnp.concatenate([jnp.ones(1), lags[:_LAGS], waves])
    seasonal = jnp.clip((baselines - last) / unit[:, None], -MOST, MOST)
    return jnp.concatenate([jnp.broadcast_to(same, (horizon, len(same))), seasonal], axis=1)


def begin_anew(old: LeastSquares, has_changed: jax.Array) -> LeastSquares:
    """Forgets what was learned of seasons that have changed, (2,)."""
    place = _place_of_seasons(old.weights.shape[1] - 1 - sum(_WAVES) - 4)
    is_new = jnp.concatenate([jnp.zeros(1, bool), has_changed])[place]
    return old._replace(weights=jnp.where(is_new, 0, old.weights))


def _place_of_seasons(lags: int) -> np.ndarray:
    """To which season each input belongs: 1 for the short one, 2 for the long one, 0 for none."""
    short, long = _WAVES
    return np.array([0] * (1 + min(lags, _LAGS)) + [1] * short + [2] * long + [1, 1, 2, 2])
