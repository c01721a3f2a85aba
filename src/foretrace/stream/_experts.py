"""Several forecasts made into one that is nearly as good as the best of them, and often better."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_LIMIT = 20.0  # in units of the scale


class Trust(NamedTuple):
    """How well each of several experts did, for several forecasts side by side.

    Attributes:
        regret: (forecasts, experts), what would have been won by following that expert.
        squares: (forecasts, experts), sum of its squares.
    """

    regret: jax.Array
    squares: jax.Array


def trust(forecasts: int, experts: int) -> Trust:
    """All experts alike."""
    return Trust(jnp.zeros((forecasts, experts)), jnp.zeros((forecasts, experts)))


def weights(known: Trust) -> jax.Array:
    """The experts' weights, (forecasts, experts), which sum to 1.

    Polynomially weighted averages with a learning rate for every expert, ML-Poly:

        w_k ~ max(R_k, 0) / (1 + sum_t r_kt^2),   R_k = sum_t r_kt         (1)

    Exactness: over T forecasts the mean absolute error exceeds that of the best expert by at most a
    constant times sqrt(T) / T, whatever happens.

    Source:
        Gaillard, Stoltz, van Erven, A second-order bound with excess losses, COLT 2014.
    """
    raw = jnp.maximum(known.regret, 0) / (1 + known.squares)  # (1)
    total = jnp.sum(raw, axis=1, keepdims=True)
    return jnp.where(total > 0, raw / jnp.where(total > 0, total, 1), 1 / raw.shape[1])


def judge(known: Trust, said: jax.Array, used: jax.Array, truth: jax.Array, scale: jax.Array) -> Trust:
    """The trust after the truth is known.

    Args:
        known: so far.
        said: what the experts forecast, (forecasts, experts).
        used: the weights with which they were mixed, (forecasts, experts).
        truth: (forecasts,), where it is not finite nothing is learned.
        scale: the unit of errors, (forecasts,).
    """
    mixed = jnp.sum(used * said, axis=1)
    # The slope of the absolute error makes a bound on the mixture out of one on the single experts.
    slope = jnp.sign(mixed - truth) / scale
    regret = slope[:, None] * (mixed[:, None] - said)
    # No single moment may decide for ever.
    regret = jnp.where(jnp.isfinite(regret), jnp.clip(regret, -_LIMIT, _LIMIT), 0)
    return Trust(known.regret + regret, known.squares + regret**2)
