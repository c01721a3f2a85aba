"""Online mixture of several forecasts, nearly as good as the best of them and often better.

Own code beside `river.expert`, because it must run inside the jitted step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_LIMIT = 20.0  # in units of the scale


class ExpertWeights(NamedTuple):
    """Regrets of experts, which `weights` turns into weights, for several forecasts side by side.

    Attributes:
        regret: (.., forecasts, experts), sum of the loss that following this expert would have saved.
        squares: likewise, sum of its squares.
    """

    regret: jax.Array
    squares: jax.Array


def init(forecasts: int, experts: int) -> ExpertWeights:
    """Equal weights."""
    return ExpertWeights(jnp.zeros((forecasts, experts)), jnp.zeros((forecasts, experts)))


def weights(state: ExpertWeights) -> jax.Array:
    """The experts' weights, (.., forecasts, experts), which sum to 1.

    Polynomially weighted averages with a learning rate for every expert, ML-Poly:

        w_k ~ max(R_k, 0) / (1 + sum_t r_kt^2),   R_k = sum_t r_kt         (1)

    Exactness: over T forecasts the mean absolute error exceeds that of the best expert by at most a
    constant times sqrt(T) / T, for any stream.

    Source:
        Gaillard, Stoltz, van Erven, A second-order bound with excess losses, COLT 2014.
    """
    raw = jnp.maximum(state.regret, 0) / (1 + state.squares)  # (1)
    total = jnp.sum(raw, axis=-1, keepdims=True)
    return jnp.where(total > 0, raw / jnp.where(total > 0, total, 1), 1 / raw.shape[-1])


def update_weights(
    state: ExpertWeights,
    predictions: jax.Array,
    combined: jax.Array,
    truth: jax.Array,
    scale: jax.Array,
    weight: jax.Array | float = 1.0,
    *,
    keep: jax.Array | float = 1.0,
) -> ExpertWeights:
    """Adds the regrets of one forecast each.

    Args:
        state: regrets so far.
        predictions: of the experts, (forecasts, experts).
        combined: the mixture's own, (.., forecasts).
        truth: (forecasts,); no regret where it is not finite.
        scale: the unit of errors, (forecasts,).
        weight: of this sample beside the others.
        keep: weight of a past regret, per new one; below 1 experts that are good of late weigh more.
    """
    # The slope of the absolute error turns a bound for the experts into one for their mixture.
    slope = jnp.sign(combined - truth) / scale
    regret = weight * slope[..., None] * (combined[..., None] - predictions)
    # No single moment may decide for ever.
    regret = jnp.where(jnp.isfinite(regret), jnp.clip(regret, -_LIMIT, _LIMIT), 0)
    return ExpertWeights(keep * state.regret + regret, keep * state.squares + regret**2)
