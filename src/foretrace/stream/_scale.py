"""Running means and spreads, which turn numbers of any unit into numbers of order 1.

Own code beside River's `StandardScaler`, because it must run inside the jitted step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

MEMORY = 1000.0  # samples over which a running mean forgets
TINY = 1e-30  # less than any unit, and its inverse is still a float
_LARGEST = 1e36  # square of a change; a float holds a few hundred times more
_LIMIT = 5.0  # standard deviations beyond which an input is cut off


class Moments(NamedTuple):
    """Running moments of a vector; entries without a sample are 0.

    Attributes:
        samples: (n,), how many so far.
        mean: (n,).
        variance: (n,) about the mean.
    """

    samples: jax.Array
    mean: jax.Array
    variance: jax.Array


def init(n: int) -> Moments:
    """Moments of no samples."""
    return Moments(jnp.zeros(n), jnp.zeros(n), jnp.zeros(n))


def update(old: Moments, values: jax.Array) -> Moments:
    """Adds one sample (n,), without its entries that are not finite."""
    known = jnp.isfinite(values).astype(values.dtype)
    count = old.samples + known
    rate = 1 / jnp.clip(count, 1, MEMORY)
    change = jnp.where(known > 0, values - old.mean, 0)
    mean = old.mean + rate * change
    # Welford's recursion: exact for the first samples, exponentially forgetting later.
    # A single huge value must not make the variance infinite, and so for ever.
    square = jnp.clip(change * (values_or(values, mean) - mean), 0, _LARGEST)
    variance = old.variance + rate * (square - old.variance * known)
    return Moments(count, mean, variance)


def standard(moments: Moments, values: jax.Array) -> jax.Array:
    """Values as standard deviations from the mean, cut off at 5; 0 where they are not finite."""
    spread = jnp.sqrt(moments.variance)
    # Until there is a spread the size of the numbers themselves is the only scale there is.
    spread = jnp.where(spread > 1e-6 * abs(moments.mean), spread, jnp.maximum(abs(moments.mean), TINY))
    return jnp.clip((values_or(values, moments.mean) - moments.mean) / spread, -_LIMIT, _LIMIT)


def mean_size(old: jax.Array, count: jax.Array, values: jax.Array, memory: float = MEMORY) -> jax.Array:
    """Running mean of absolute values, (n,), after `count` others; never 0."""
    rate = 1 / jnp.minimum(count + 1, memory)
    new = old + rate * (abs(values) - old)
    return jnp.maximum(jnp.where(count < 1, abs(values), new), TINY)


def values_or(values: jax.Array, other: jax.Array) -> jax.Array:
    """Values, replaced by `other` where they are not finite."""
    return jnp.where(jnp.isfinite(values), values, other)
