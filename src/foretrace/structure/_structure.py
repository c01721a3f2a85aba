"""Which parameters factorise: the Kronecker structure of a cell, read off its traced derivative.

`jax.jvp` of a cell is traced once, and its program is cut in two: the known part runs forward and leaves
*residuals* (what the linear part reads and depends on the hidden state or the input), the linear part maps
tangents to the tangent of the new hidden state. A leaf of the parameters *factorises* if its tangent enters
the linear part through one product with a known vector f (a bias: through one sum, f = 1). Leaves that are
then summed into one z form a *group*, for which

    immediate_jacobian = input_factor (x) preact_jacobian,    preact_jacobian = d hidden' / d z.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from foretrace._types import Hidden, Input, Params
from foretrace.structure._program import Program
from foretrace.structure._trace import DenseLeaf, Group, Member


@dataclasses.dataclass(frozen=True, eq=False)
class Structure:
    """A cell's traced step: its groups, and the forward, tangent and cotangent maps of one example.

    Hidden states, tangents and credits are flat, (S,) with S = `state_size`. `point` is parameters, a
    hidden state and an input at which the step and its derivative are finite, for probes.
    """

    hidden: Any
    x: Any
    state_size: int
    dtype: Any
    treedef: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    groups: tuple[Group, ...]
    dense: tuple[DenseLeaf, ...]
    unused: tuple[str, ...]
    ravel: Callable[[Hidden], jax.Array]
    unravel: Callable[[jax.Array], Hidden]
    _program: Program
    point: Any = None

    def forward(self, params: Params, hidden: jax.Array, x: Input) -> tuple[jax.Array, tuple]:
        """(params, hidden (S,), x) -> (hidden' (S,), residuals)."""
        return self._program.forward(jax.tree.leaves(params), hidden, jax.tree.leaves(x))

    @property
    def residual_shapes(self) -> tuple:
        """What one step of one lane leaves in the window: objects with a shape and a dtype."""
        return tuple(v.aval for v in self._program.residuals)

    def weights(self, params: Params) -> tuple[Any, ...]:
        """The leaves of the parameters that the linear part reads: beside residuals, all it depends on."""
        leaves = jax.tree.leaves(params)
        return tuple(leaves[i] for i in self._program.weights)

    def with_weights(self, params: Params, weights: Sequence[jax.Array]) -> Params:
        """Parameters with other `weights`; the same if none are given."""
        if not weights:
            return params
        leaves = jax.tree.leaves(params)
        for i, leaf in zip(self._program.weights, weights, strict=True):
            leaves[i] = leaf
        return jax.tree.unflatten(self.treedef, leaves)

    def factors(self, residuals: tuple) -> tuple[jax.Array, ...]:
        """The input factor f (F,) of every group."""
        known = dict(zip(self._program.residuals, residuals, strict=True))
        return tuple(
            jnp.concatenate([_factor(member, known, self.dtype) for member in group.members])
            for group in self.groups
        )

    def pushforward(
        self,
        params: Params,
        residuals: tuple,
        tangent: jax.Array | None,
        preacts: Sequence[jax.Array | None] | None = None,
        dense: Sequence[jax.Array | None] | None = None,
        direct: bool = False,
    ) -> jax.Array:
        """Tangent of hidden' from those of hidden (S,), of every z (Z,) and of every dense leaf.

        With `direct`, of what passes no weight of a group.
        """
        out = self._program.tangent(
            jax.tree.leaves(params),
            residuals,
            tangent,
            preacts or [None] * len(self.groups),
            dense or [None] * len(self.dense),
            direct,
        )
        return jnp.zeros(self.state_size, self.dtype) if out is None else out

    @property
    def is_elementwise(self) -> bool:
        """Whether the linear part only scales, adds and moves entries, beside products with weights."""
        return self._program.is_elementwise

    def cut(
        self,
        params: Params,
        residuals: tuple,
        tangents: tuple[jax.Array | None, dict[int, jax.Array] | None],
        every_branch: bool = False,
    ) -> tuple:
        """The linear part cut at every z; see `Program.cut`. Tangents of hidden, and of z by group."""
        hidden, shifts = tangents
        preacts = [(shifts or {}).get(i) for i in range(len(self.groups))]
        out, factors, rests = self._program.cut(
            jax.tree.leaves(params), residuals, hidden, preacts, every_branch
        )
        return (jnp.zeros(self.state_size, self.dtype) if out is None else out), factors, rests

    def spread(
        self,
        tangent: jax.Array,
        preacts: Sequence[jax.Array],
        dense: Sequence[jax.Array],
        direct: bool = False,
    ) -> jax.Array:
        """`pushforward` of a generic cell with the same non-zeros; see `Program.spread`."""
        out = self._program.spread(tangent, preacts, dense, direct)
        return jnp.zeros(self.state_size, self.dtype) if out is None else out

    def pullback(
        self, params: Params, residuals: tuple, credit: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        """Credit (S,) at hidden' -> credits at hidden (S,), at every z (Z,) and every dense leaf."""
        zeros = (
            jnp.zeros(self.state_size, self.dtype),
            tuple(jnp.zeros(group.preact_size, self.dtype) for group in self.groups),
            tuple(jnp.zeros(self.leaves[d.leaf].shape, self.leaves[d.leaf].dtype) for d in self.dense),
        )
        _, transpose = jax.vjp(lambda t, z, w: self.pushforward(params, residuals, t, z, w), *zeros)
        hidden, preacts, dense = transpose(credit)
        return hidden, preacts, tuple(leaf.astype(self.dtype) for leaf in dense)

    def gradient(self, matrices: Sequence[jax.Array], dense: Sequence[jax.Array]) -> Params:
        """Params-shaped gradient from one (F, Z) matrix per group and one array per dense leaf."""
        out: list = [jnp.zeros(leaf.shape, leaf.dtype) for leaf in self.leaves]
        for group, matrix in zip(self.groups, matrices, strict=True):
            start = 0
            for member in group.members:
                rows = matrix[start : start + member.rows]
                start += member.rows
                leaf = self.leaves[member.leaf]
                rows = rows.astype(jax.eval_shape(member.matrix, leaf).dtype)
                (out[member.leaf],) = jax.linear_transpose(member.matrix, leaf)(rows)
        for leaf, value in zip(self.dense, dense, strict=True):
            out[leaf.leaf] = value.astype(self.leaves[leaf.leaf].dtype)
        return jax.tree.unflatten(self.treedef, out)

    def matrices(self, params: Params) -> tuple[jax.Array, ...]:
        """The leaves of every group as one (F, Z) matrix, the inverse of `gradient`."""
        leaves = jax.tree.leaves(params)
        return tuple(
            jnp.concatenate([member.matrix(leaves[member.leaf]) for member in group.members])
            for group in self.groups
        )


def _factor(member: Member, known: dict, dtype) -> jax.Array:
    one = jnp.ones(1, dtype) if member.factor is None else known[member.factor].ravel()
    return member.sign * one.astype(dtype)
