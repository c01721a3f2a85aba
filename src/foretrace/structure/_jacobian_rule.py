"""A step's Jacobians as matrices, or rows times them: what a block asks for, and the rule for any cell."""

from abc import ABC, abstractmethod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._types import Params
from foretrace.structure._structure import Structure


class JacobianRule(ABC):
    """Maps rows Q, (N, S) or None for the identity, to Q times each Jacobian of one step.

    Split into several functions, so that a block can make once what it needs at every step, and can choose
    where its large matrices are made, which is outside of its loop.
    """

    def __init__(self, structure: Structure):
        self.structure = structure

    @abstractmethod
    def weights(self, params: Params) -> Any:
        """The part of the parameters that `step` reads, in the form in which it does."""

    @abstractmethod
    def values(self, params: Params, residuals: tuple) -> Any:
        """The values of one step, few numbers."""

    @abstractmethod
    def step(
        self, weights: Any, values: Any, rows: jax.Array | None, cut: jax.Array
    ) -> tuple[jax.Array, Any, tuple[jax.Array, ...]]:
        """Rows through one step.

        Args:
            weights: of `weights`.
            values: of `values`.
            rows: Q.
            cut: bool; where it is true, nothing comes from the state before.

        Returns:
            Q state_jacobian (N, S), slopes, and per dense leaf Q immediate_jacobian (N, size).
        """

    @abstractmethod
    def rights(self, slopes: Any, rows: jax.Array | None) -> tuple[jax.Array, ...]:
        """Per group Q preact_jacobian (N, Z)."""

    def entries(self, slopes: Any) -> tuple[tuple[jax.Array, np.ndarray], ...] | None:
        """Per group the entries (n,) of preact_jacobian and their places (n,) in the flattened matrix.

        Places are fixed and all different, all other entries are zero; None where they are not known.
        """
        del slopes

    def jacobians(
        self, params: Params, residuals: tuple
    ) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        """state_jacobian (S, S), per group preact_jacobian (S, Z), per dense leaf (S, size)."""
        values, cut = self.values(params, residuals), jnp.zeros((), bool)
        state, slopes, dense = self.step(self.weights(params), values, None, cut)
        return state, self.rights(slopes, None), dense


class RowByRow(JacobianRule):
    """Pulls every row back through the step: for any cell."""

    def weights(self, params: Params) -> Params:
        """The parameters."""
        return params

    def values(self, params: Params, residuals: tuple) -> tuple:
        """The residuals."""
        return residuals

    def step(self, weights, values, rows, cut):
        """See `JacobianRule`; the slopes are the products with preact_jacobian."""
        structure = self.structure
        rows = jnp.eye(structure.state_size, dtype=structure.dtype) if rows is None else rows
        pullback = jax.vmap(structure.pullback, in_axes=(None, None, 0))
        state, preacts, dense = pullback(weights, values, rows)
        dense = tuple(leaf.reshape(leaf.shape[0], -1) for leaf in dense)
        return jnp.where(cut, 0, state), preacts, dense

    def rights(self, slopes, rows):
        """The slopes."""
        return slopes
