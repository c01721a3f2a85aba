"""Recursive least squares with forgetting, robust to outliers: readouts that need no learning rate.

Own code beside River's `BayesianLinearRegression`, because it must run inside the jitted step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace.stream._scale import mean_size

_KEEP = 0.999  # weight of a past sample, per new sample
PRIOR = 0.1  # variance of a weight before the first sample
_WIDE = 10.0  # mean variance beyond which nothing is forgotten, in units of the first one
_LATE, _USUAL = 20.0, 500.0  # samples over which mean errors are taken, and compared
_CHANGE = 1.5  # their ratio that tells of an abrupt change, after which the past counts a tenth
_PAST = 0.1
_EARLIEST = 200  # samples before any change is told


class _Errors(NamedTuple):
    """Mean errors after one more sample, and whether they tell of an abrupt change."""

    samples: jax.Array
    late: jax.Array
    usual: jax.Array
    has_changed: jax.Array


class LeastSquares(NamedTuple):
    """Weights of linear readouts of one vector of features, or of one vector each.

    Attributes:
        covariance: (k, n, n), of the weights in units of the noise; k is 1 if the readouts share features.
        weights: (readouts, n).
        samples: so far.
        late: mean absolute error of late, of all readouts together.
        usual: the same over many more samples, or since the last abrupt change.
    """

    covariance: jax.Array
    weights: jax.Array
    samples: jax.Array
    late: jax.Array
    usual: jax.Array


def init(readouts: int, n: int, *, shared: bool, prior: float = PRIOR) -> LeastSquares:
    """Readouts that predict 0.

    Args:
        readouts: how many.
        n: number of features.
        shared: whether all readouts have the same features.
        prior: variance of a weight.
    """
    count = 1 if shared else readouts
    zero = jnp.zeros(())
    return LeastSquares(
        jnp.tile(prior * jnp.eye(n), (count, 1, 1)), jnp.zeros((readouts, n)), zero, zero, zero
    )


def predict(old: LeastSquares, features: jax.Array) -> jax.Array:
    """Outputs, (readouts,), for features (1 or readouts, n)."""
    return jnp.sum(old.weights * features, axis=1)


def fit(
    old: LeastSquares,
    features: jax.Array,
    targets: jax.Array,
    sample_weight: jax.Array | float = 1.0,
    *,
    prior: float = PRIOR,
    anew: jax.Array | bool = False,
) -> LeastSquares:
    """The least-squares fit with one more sample; the old one where that is not finite.

        q = s min(1, 1 / |y - w . x|)               (1)
        k = q P x / (0.999 + q x . P x)             (2)
        w <- w + k (y - w . x)                      (3)
        P <- (P - k (P x)^T) / 0.999                (4)

    Where the mean error of late is half as large again as usual, the stream has changed: P grows tenfold,
    so that the past counts a tenth, and errors of that size are usual from then on.

    Cost: 2 passes over P.

    Args:
        old: the fit so far.
        features: x, (1 or readouts, n).
        targets: y, (readouts,), of order 1.
        sample_weight: s, of this sample beside the others; one number or one for each readout.
        prior: variance of a weight before the first sample.
        anew: True to forget first how sure the weights are.

    Source:
        Recursive least squares with exponential forgetting; (1) are Huber's weights for an error above 1.
    """
    error = targets - predict(old, features)
    weight = sample_weight * jnp.minimum(1, 1 / jnp.maximum(abs(error), 1e-12))  # (1)
    # Readouts that share their features share P too, and so the weight of a sample.
    shared = jnp.mean(weight, keepdims=True) if len(features) < len(targets) else weight
    errors = _errors(old, error, jnp.any(weight > 0))
    # A slice for the diagonal, and below an identity that is written out: XLA computes the
    # indices and masks of JAX's own outside of the one kernel of a step (`_xla.in_one_kernel`).
    variances = old.covariance.reshape(len(old.covariance), -1)[:, :: features.shape[1] + 1]
    most = jnp.maximum(_WIDE / _PAST * prior / jnp.mean(variances, axis=1), 1)
    growth = jnp.where(errors.has_changed, jnp.minimum(1 / _PAST, most), 1)
    product = jnp.where(anew, prior * features, growth[:, None] * _product(old.covariance, features))  # P x
    diagonal = jnp.where(anew, prior, growth[:, None] * variances)
    gain = (
        shared[:, None] * product / (_KEEP + shared * jnp.sum(features * product, axis=1))[:, None]
    )  # (2)
    part = jnp.where(shared > 0, weight / jnp.where(shared > 0, shared, 1), 0)
    weights = old.weights + gain * (part * error)[:, None]  # (3)
    is_wanted = jnp.all(jnp.isfinite(weights)) & (shared > 0)
    # What becomes of P is read off its diagonal, so that it is gone through only once.
    diagonal = diagonal - gain * product
    # Rounding can make a covariance indefinite, which every later step would amplify: start anew.
    is_sound = jnp.all((diagonal > 0) & (diagonal < jnp.inf), axis=1)
    # The covariance of directions without samples would grow for ever.
    keep = jnp.where(jnp.mean(diagonal, axis=1) < _WIDE * prior, _KEEP, 1.0)
    grown = jnp.where(is_wanted, 1 / keep, 1.0)
    of_old = jnp.where(anew | (is_wanted & ~is_sound), 0, grown * jnp.where(is_wanted, growth, 1))
    of_prior = jnp.where(is_wanted & ~is_sound, 1, jnp.where(anew, grown, 0)) * prior
    less = jnp.where(is_wanted & is_sound, grown, 0)[:, None] * gain
    identity = jnp.asarray(np.eye(features.shape[1]))[None]
    covariance = (  # (4)
        of_old[:, None, None] * old.covariance
        + of_prior[:, None, None] * identity
        - less[:, :, None] * product[:, None, :]
    )
    weights = jnp.where(jnp.all(jnp.isfinite(weights)), weights, old.weights)
    return LeastSquares(covariance, weights, errors.samples, errors.late, errors.usual)


def _errors(old: LeastSquares, error: jax.Array, counts: jax.Array) -> _Errors:
    """Mean errors with one more of each readout, (readouts,), if it counts."""
    size = jnp.mean(abs(error))
    # A single outlier is no change.
    size = jnp.where(old.samples > 0, jnp.minimum(size, 3 * old.usual), size)
    late = mean_size(old.late, old.samples, size, _LATE)
    usual = mean_size(old.usual, old.samples, size, _USUAL)
    counts = counts & jnp.isfinite(size)
    has_changed = counts & (old.samples >= _EARLIEST) & (late > _CHANGE * usual)
    return _Errors(
        old.samples + counts.astype(size.dtype),
        jnp.where(counts, late, old.late),
        jnp.where(counts, jnp.where(has_changed, late, usual), old.usual),
        has_changed,
    )


def _product(covariance: jax.Array, features: jax.Array) -> jax.Array:
    if len(features) > 1:
        # Down the columns, which are the rows: so XLA for CPUs handles many numbers at once.
        return jnp.sum(covariance * features[:, :, None], axis=1)
    # XLA for CPUs makes a sum of a product with a batch of one, and takes it again for every entry of P.
    return (covariance[0] @ features[0])[None]
