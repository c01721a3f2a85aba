"""Origins: values far from zero enter the model as differences that lose no digits.

A float32 has 24 bits, and of 48,000,000.25 keeps 48,000,000. So each value is split outside of JAX into a
pair of floats, high and low, with 48 bits together. The model subtracts an origin, a pair too, and learns
the differences; when the values have moved far from the origin, it moves after them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_FARTHEST = 1e4  # units from the origin beyond which it moves: differences keep 3 digits of a unit there


class Origin(NamedTuple):
    """Values, (n,), from which differences are taken: the sums of `high` and `low`."""

    high: jax.Array
    low: jax.Array


def init(n: int) -> Origin:
    """Zero."""
    return Origin(jnp.zeros(n), jnp.zeros(n))


def pairs(values: Any) -> np.ndarray:
    """Splits float64 numbers into pairs of JAX's floats that sum to them, (.., 2); outside of JAX."""
    values = np.asarray(values, float)
    split = np.empty((*values.shape, 2), jax.dtypes.canonicalize_dtype(float))
    with np.errstate(over="ignore", invalid="ignore"):
        split[..., 0] = values
        low = values - split[..., 0]
    split[..., 1] = np.where(np.isfinite(low), low, 0)
    return split


def from_pairs(packed: Any) -> np.ndarray:
    """Adds the origin, the last two numbers, to the differences before it, in float64; outside of JAX."""
    packed = np.asarray(packed, float)
    return packed[..., :-2] + packed[..., -2:].sum(axis=-1, keepdims=True)


def start(origin: Origin, values: jax.Array, samples: jax.Array) -> Origin:
    """The first finite pair, (n, 2), as the origin, where there were no samples, (n,), before."""
    is_first = (samples == 0) & jnp.isfinite(values[:, 0])
    return Origin(*(jnp.where(is_first, part, old) for part, old in zip(values.T, origin, strict=True)))


def difference(values: jax.Array, origin: Origin) -> jax.Array:
    """Pairs, (n, 2), minus the origin, (n,)."""
    # The parts of numbers that are close to each other differ exactly.
    return (values[:, 0] - origin.high) + (values[:, 1] - origin.low)


def between(new: Origin, old: Origin) -> jax.Array:
    """How far the new origin is above the old one, (n,)."""
    return (new.high - old.high) + (new.low - old.low)


def follow(origin: Origin, center: jax.Array, unit: jax.Array) -> tuple[Origin, jax.Array]:
    """Moves the origin to a center, (n,) above it, if that is many units away; also returns how far."""
    shift = jnp.where(abs(center) > _FARTHEST * unit, center, 0)
    # An exact sum of two floats (Knuth): the rounding error of the high parts goes to the low part.
    high = origin.high + shift
    rest = high - origin.high
    error = (origin.high - (high - rest)) + (shift - rest)
    return Origin(high, origin.low + error), shift
