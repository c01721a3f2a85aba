"""Recursive least squares with forgetting, robust to outliers: readouts that need no learning rate.

Own code beside River's `BayesianLinearRegression`, because it must run inside the jitted step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_KEEP = 0.999  # weight of a past sample, per new sample
_PRIOR = 0.1  # variance of a weight before the first sample
_WIDE = 10 * _PRIOR  # mean variance beyond which nothing is forgotten


class LeastSquares(NamedTuple):
    """Weights of linear readouts of one vector of features, or of one vector each.

    Attributes:
        covariance: (k, n, n), of the weights in units of the noise; k is 1 if the readouts share features.
        weights: (readouts, n).
    """

    covariance: jax.Array
    weights: jax.Array


def init(readouts: int, n: int, *, shared: bool) -> LeastSquares:
    """Readouts that predict 0.

    Args:
        readouts: how many.
        n: number of features.
        shared: whether all readouts have the same features.
    """
    count = 1 if shared else readouts
    return LeastSquares(jnp.tile(_PRIOR * jnp.eye(n), (count, 1, 1)), jnp.zeros((readouts, n)))


def predict(old: LeastSquares, features: jax.Array) -> jax.Array:
    """Outputs, (readouts,), for features (1 or readouts, n)."""
    return jnp.sum(old.weights * features, axis=1)


def fit(
    old: LeastSquares, features: jax.Array, targets: jax.Array, sample_weight: jax.Array | float = 1.0
) -> LeastSquares:
    """The least-squares fit with one more sample.

        q = s min(1, 1 / |y - w . x|)               (1)
        k = q P x / (0.999 + q x . P x)             (2)
        w <- w + k (y - w . x)                      (3)
        P <- (P - k (P x)^T) / 0.999                (4)

    Cost: 3 passes over P.

    Args:
        old: the fit so far.
        features: x, (1 or readouts, n).
        targets: y, (readouts,), of order 1.
        sample_weight: s, of this sample beside the others.

    Source:
        Recursive least squares with exponential forgetting; (1) are Huber's weights for an error above 1.
    """
    error = targets - predict(old, features)
    weight = sample_weight * jnp.minimum(1, 1 / jnp.maximum(abs(error), 1e-12))  # (1)
    # Readouts that share their features share P too, and so the weight of a sample.
    shared = jnp.mean(weight, keepdims=True) if len(features) < len(targets) else weight
    product = jnp.matvec(old.covariance, features)  # P x
    gain = (
        shared[:, None] * product / (_KEEP + shared * jnp.sum(features * product, axis=1))[:, None]
    )  # (2)
    steps = gain * (weight / shared)[:, None]
    weights = old.weights + steps * error[:, None]  # (3)
    covariance = old.covariance - gain[:, :, None] * product[:, None, :]
    # The covariance of directions without samples would grow for ever.
    mean = jnp.trace(covariance, axis1=1, axis2=2) / features.shape[1]
    covariance = covariance / jnp.where(mean < _WIDE, _KEEP, 1.0)[:, None, None]  # (4)
    # Rounding can make a covariance indefinite, which every later step would amplify: start anew.
    spread = jnp.diagonal(covariance, axis1=1, axis2=2)
    sound = jnp.all((spread > 0) & (spread < jnp.inf), axis=1)[:, None, None]
    covariance = jnp.where(sound, covariance, _PRIOR * jnp.eye(features.shape[1])[None])
    return LeastSquares(covariance, weights)
