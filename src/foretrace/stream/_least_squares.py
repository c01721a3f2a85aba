"""Recursive least squares, forgetting and robust to outliers: readouts that need no learning rate."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_KEEP = 0.999  # of what is known, per sample
_PRIOR = 0.1  # variance of a weight before anything was seen
_WIDE = 10 * _PRIOR  # beyond this mean variance nothing more is forgotten


class LeastSquares(NamedTuple):
    """Weights of linear readouts of one vector of features, or of one vector each.

    Attributes:
        covariance: (k, n, n), of the weights in units of the noise; k is 1 if the readouts share features.
        weights: (readouts, n).
    """

    covariance: jax.Array
    weights: jax.Array


def least_squares(readouts: int, n: int, *, shared: bool) -> LeastSquares:
    """Readouts that say 0 to everything.

    Args:
        readouts: how many.
        n: number of features.
        shared: whether all readouts have the same features.
    """
    count = 1 if shared else readouts
    return LeastSquares(jnp.tile(_PRIOR * jnp.eye(n), (count, 1, 1)), jnp.zeros((readouts, n)))


def read(known: LeastSquares, features: jax.Array) -> jax.Array:
    """What the readouts say, (readouts,), of features (1 or readouts, n)."""
    return jnp.sum(known.weights * features, axis=1)


def fit(known: LeastSquares, features: jax.Array, targets: jax.Array) -> LeastSquares:
    """The least-squares fit with one more sample.

        q = min(1, 1 / |y - w . x|)                 (1)
        k = q P x / (0.999 + q x . P x)             (2)
        w <- w + k (y - w . x)                      (3)
        P <- (P - k (P x)^T) / 0.999                (4)

    Cost: 3 passes over P.

    Args:
        known: so far.
        features: x, (1 or readouts, n).
        targets: y, (readouts,), of order 1.

    Source:
        Recursive least squares with exponential forgetting; (1) are Huber's weights for an error above 1.
    """
    error = targets - read(known, features)
    weight = jnp.minimum(1, 1 / jnp.maximum(abs(error), 1e-12))  # (1)
    # Readouts that share their features share P too, and so the weight of a sample.
    shared = jnp.mean(weight, keepdims=True) if len(features) < len(targets) else weight
    seen = jnp.matvec(known.covariance, features)
    gain = shared[:, None] * seen / (_KEEP + shared * jnp.sum(features * seen, axis=1))[:, None]  # (2)
    steps = gain * (weight / shared)[:, None]
    weights = known.weights + steps * error[:, None]  # (3)
    covariance = known.covariance - gain[:, :, None] * seen[:, None, :]
    # Directions that are never seen would grow for ever.
    mean = jnp.trace(covariance, axis1=1, axis2=2) / features.shape[1]
    covariance = covariance / jnp.where(mean < _WIDE, _KEEP, 1.0)[:, None, None]  # (4)
    # Rounding can make a covariance indefinite; then everything would soon be wrong, so begin anew.
    spread = jnp.diagonal(covariance, axis1=1, axis2=2)
    sound = jnp.all((spread > 0) & (spread < jnp.inf), axis=1)[:, None, None]
    covariance = jnp.where(sound, covariance, _PRIOR * jnp.eye(features.shape[1])[None])
    return LeastSquares(covariance, weights)
