"""Running means and spreads: what turns a number of any unit into one of order 1."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

MEMORY = 1000.0  # samples over which a running mean forgets
TINY = 1e-30  # less than any unit, and its inverse is still a float
_LARGEST = 1e36  # square of a change; a float holds a few hundred times more
_LIMIT = 5.0  # standard deviations beyond which an input is cut off


class Moments(NamedTuple):
    """Running moments of a vector; entries that were never seen have 0 samples.

    Attributes:
        samples: (n,) seen.
        mean: (n,).
        variance: (n,) about the mean.
    """

    samples: jax.Array
    mean: jax.Array
    variance: jax.Array


def moments(n: int) -> Moments:
    """Moments of nothing."""
    return Moments(jnp.zeros(n), jnp.zeros(n), jnp.zeros(n))


def seen(old: Moments, values: jax.Array) -> Moments:
    """The moments with one more sample (n,), of which those that are not finite are left out."""
    given = jnp.isfinite(values).astype(values.dtype)
    count = old.samples + given
    rate = 1 / jnp.clip(count, 1, MEMORY)
    change = jnp.where(given > 0, values - old.mean, 0)
    mean = old.mean + rate * change
    # Welford's recursion: exact for the first samples, exponentially forgetting later.
    # A single huge value must not make the variance infinite, and so for ever.
    square = jnp.clip(change * (values_or(values, mean) - mean), 0, _LARGEST)
    variance = old.variance + rate * (square - old.variance * given)
    return Moments(count, mean, variance)


def standard(known: Moments, values: jax.Array) -> jax.Array:
    """Values as standard deviations from the mean, cut off at 5; 0 where they are not finite."""
    spread = jnp.sqrt(known.variance)
    # Until there is a spread the size of the numbers themselves is the only scale there is.
    spread = jnp.where(spread > 1e-6 * abs(known.mean), spread, jnp.maximum(abs(known.mean), TINY))
    return jnp.clip((values_or(values, known.mean) - known.mean) / spread, -_LIMIT, _LIMIT)


def size(old: jax.Array, count: jax.Array, values: jax.Array, memory: float = MEMORY) -> jax.Array:
    """Running mean of absolute values, (n,), `count` of them seen before; never 0."""
    rate = 1 / jnp.minimum(count + 1, memory)
    new = old + rate * (abs(values) - old)
    return jnp.maximum(jnp.where(count < 1, abs(values), new), TINY)


def values_or(values: jax.Array, other: jax.Array) -> jax.Array:
    """Values, and another's where they are not finite."""
    return jnp.where(jnp.isfinite(values), values, other)
