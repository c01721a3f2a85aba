"""Right factors Q_i D_i of the products that a block's k steps add to the influence, k matrices (S, Z).

The past stores its right factors with their number last, (S, Z, R). Where Z is divided over devices, sums
over S and Z are written as such, since both as one axis would be in pieces on each; on one device XLA takes
an eighth longer for them (`foretrace bench highway-128`, kf_rtrl).
"""

from functools import cached_property, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from foretrace._xla import computed_once, is_spread


class DenseRight:
    """All entries of k matrices."""

    def __init__(self, matrices: Float[Array, "k S Z"]) -> None:
        self.dense = matrices

    @cached_property
    def _columns(self) -> Float[Array, "S Z k"]:
        # Transposed once, since products that contract over rows are several times faster.
        return computed_once(jnp.moveaxis(self.dense, 0, -1))

    @cached_property
    def _rows(self) -> Float[Array, "k SZ"]:
        # Norms and sum read them; without this each computes them anew, with a copy of all Jacobians of the
        # block (`foretrace bench highway-128`, kf_rtrl/16).
        return computed_once(self.dense.reshape(len(self.dense), -1))

    def squares(self) -> Float[Array, " k"]:
        """Squared norms."""
        if is_spread():
            return jnp.sum(self.dense**2, axis=(1, 2))
        return jnp.sum(self._rows**2, axis=1)

    def gram(self) -> Float[Array, "k k"]:
        """Inner products with each other."""
        return inner(self._columns, self._columns)

    def across(self, past: Float[Array, "S Z q"]) -> Float[Array, "q k"]:
        """Inner products with the factors of a past."""
        return inner(past, self._columns)

    def added(self, past: Float[Array, "S Z r"], mixing: Float[Array, "r k"]) -> Float[Array, "S Z r"]:
        """A past with so much of each added to every factor."""
        if len(mixing) == 1 and not is_spread():  # which needs no transpose
            flat = past.reshape(-1, 1) + (mixing @ self._rows).T
            return flat.reshape(past.shape)
        return past + self._columns @ mixing.T


class SparseRight:
    """A single matrix, zero but for a few entries whose places are known beforehand: D itself.

    Nothing here reads or writes as many numbers as the matrix has, but `dense`.
    """

    def __init__(self, values: Float[Array, " n"], index: np.ndarray, shape: tuple[int, int]) -> None:
        """Values (n,) and their places (n,), all different, in the flattened matrix of shape (S, Z)."""
        self._values, self._index, self._shape = values, index, shape

    @property
    def dense(self) -> Float[Array, "1 S Z"]:
        """The matrix, with an axis of one for the step."""
        whole = jnp.zeros(self._shape, self._values.dtype).reshape(-1)
        return self._put(whole, self._values).reshape(1, *self._shape)

    def squares(self) -> Float[Array, " 1"]:
        """Its squared norm."""
        return jnp.sum(self._values**2)[None]

    def gram(self) -> Float[Array, "1 1"]:
        """Its inner product with itself."""
        return self.squares()[None]

    def across(self, past: Float[Array, "S Z q"]) -> Float[Array, "q 1"]:
        """Inner products with the factors of a past."""
        return (self._values @ past.reshape(-1, past.shape[-1])[self._index])[:, None]

    def added(self, past: Float[Array, "S Z r"], mixing: Float[Array, "r 1"]) -> Float[Array, "S Z r"]:
        """A past with so much of it added to every factor."""
        flat = past.reshape(-1, past.shape[-1])
        return self._put(flat, self._values[:, None] * mixing.T).reshape(past.shape)

    def _put(self, whole: jax.Array, values: jax.Array) -> jax.Array:
        return whole.at[self._index].add(values, unique_indices=True)


RightFactors = DenseRight | SparseRight

# Columns; of so few, one pass of multiplications and additions is two to three times faster than XLA's
# product of a tall thin matrix on a CPU (`foretrace bench rnn-256`, ok:8).
_NARROW = 8


def inner(a: Float[Array, "S Z q"], b: Float[Array, "S Z r"]) -> Float[Array, "q r"]:
    """Inner products, written so that the compiler sees no transpose of these tall arrays."""
    if is_spread():
        return jnp.einsum("szq,szr->qr", a, b)
    a, b = (each.reshape(-1, each.shape[-1]) for each in (a, b))
    return jnp.einsum("nq,nr->qr", a, b)


def mixed(past: Float[Array, "S Z q"], mixing: Float[Array, "r q"]) -> Float[Array, "S Z r"]:
    """The product past @ mixing^T."""
    if past.shape[-1] > _NARROW:
        return past @ mixing.T
    return reduce(jnp.add, (past[..., j, None] * mixing[None, None, :, j] for j in range(past.shape[-1])))
