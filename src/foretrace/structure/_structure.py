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
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from foretrace._types import Hidden, Input, Params
from foretrace._xla import computed_once
from foretrace.structure._equations import Equation, evaluate
from foretrace.structure._generic import generic_rule, generic_values
from foretrace.structure._groups import DenseLeaf, Group, Member
from foretrace.structure._linear import LinearPart
from foretrace.structure._trace import Trace, dtype_of, read, variables


@dataclasses.dataclass(frozen=True, eq=False)
class Structure:
    """A cell's traced step: its groups, and the forward, tangent and cotangent maps of one example.

    Hidden states, tangents and credits are flat, (S,) with S = `state_size`. The cell's own program runs in
    the cell's own dtypes; tangents and credits come and go in `dtype`, at least float32, since influences
    are sums over many steps, of squares and products of any size.

    Attributes:
        hidden: shapes of the hidden state.
        x: shapes of an input.
        state_size: S.
        dtype: of tangents, credits and influences.
        treedef: of the parameters.
        leaves: shapes of the parameters' leaves.
        groups: leaves that factorise, by the pre-activation they are summed into.
        dense: leaves that do not, each with the reason.
        unused: names of leaves that the step does not read.
        ravel: hidden -> (S,).
        unravel: (S,) -> hidden.
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
    _trace: Trace

    def forward(self, params: Params, hidden: jax.Array, x: Input) -> tuple[jax.Array, tuple]:
        """(params, hidden (S,), x) -> (hidden' (S,), residuals)."""
        trace = self._trace
        # The known equations alone: no tangent is computed on the way forward.
        env = trace.consts | dict(zip(trace.params, jax.tree.leaves(params), strict=True))
        env |= dict(zip(trace.x, jax.tree.leaves(x), strict=True)) | {trace.hidden: hidden}
        for e in trace.known:
            env.update(zip(e.outputs, self._known(e, env), strict=True))
        return read(env, trace.output), tuple(env[v] for v in self._residuals)

    @property
    def rounding(self) -> float:
        """The relative rounding of the coarsest number in the cell's program."""
        return self._trace.rounding

    @property
    def residual_shapes(self) -> tuple:
        """Shapes and dtypes of what one step of one lane leaves in the window."""
        return tuple(v.aval for v in self._residuals)

    def weights(self, params: Params) -> tuple[Any, ...]:
        """The leaves of the parameters that the linear part reads: beside residuals, all it depends on."""
        leaves = jax.tree.leaves(params)
        return tuple(leaves[i] for i in self._weight_leaves)

    def with_weights(self, params: Params, weights: Sequence[jax.Array]) -> Params:
        """Parameters with other `weights`; the same if there are none."""
        if not weights:
            return params
        leaves = jax.tree.leaves(params)
        for i, leaf in zip(self._weight_leaves, weights, strict=True):
            leaves[i] = leaf
        return jax.tree.unflatten(self.treedef, leaves)

    def factors(self, residuals: tuple) -> tuple[jax.Array, ...]:
        """The input factor f (F,) of every group."""
        known = dict(zip(self._residuals, residuals, strict=True))
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
        without_weights: bool = False,
    ) -> jax.Array:
        """Tangent of hidden' from those of hidden (S,), of every z (Z,) and of every dense leaf.

        `without_weights=True` drops every path through a weight matrix of a group (the leak of a unit
        remains).
        """
        env, part = self._known_values(params, residuals), self.linear_part
        rule = part.without_weights(part.derivative) if without_weights else part.derivative
        return part.run(env, rule, self._narrow(tangent), preacts, dense).astype(self.dtype)

    def cut(self, params: Params, residuals: tuple, tangent: Any, preacts: Any = None) -> tuple:
        """Tangents through the linear part cut at every z, without products with a group's weights.

        Args:
            params: the cell's parameters.
            residuals: of the step.
            tangent: of hidden, (S,) or None.
            preacts: of every z, (Z,) or None each.

        Returns:
            Tangents as those of `LinearPart.cut`.
        """
        env, part = self._known_values(params, residuals), self.linear_part
        out = part.cut(env, part.derivative, self._narrow(tangent), preacts)
        return jax.tree.map(lambda a: a.astype(self.dtype), out)

    def generic_tangent(
        self,
        tangent: jax.Array,
        preacts: Sequence[jax.Array],
        dense: Sequence[jax.Array],
        without_weights: bool = False,
    ) -> jax.Array:
        """Like `pushforward`, with every number that is known only at run time replaced by a random one.

        So an entry of the output is zero only if it is zero for all parameters, states and inputs.
        """
        env, part = self._generic_values, self.linear_part
        rule = generic_rule(part, env)
        rule = part.without_weights(rule) if without_weights else rule
        return part.run(env, rule, self._narrow(tangent), preacts, dense).astype(self.dtype)

    def generic_cut(self, tangent: Any, preacts: Any = None) -> tuple:
        """Like `cut`, with every number that is known only at run time replaced by a random one."""
        env, part = self._generic_values, self.linear_part
        return part.cut(env, generic_rule(part, env), self._narrow(tangent), preacts)

    def pullback(
        self, params: Params, residuals: tuple, credit: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        """Credit (S,) at hidden' -> credits at hidden (S,), at every z (Z,) and every dense leaf."""
        zeros = (
            jnp.zeros(self.state_size, self.dtype),
            tuple(jnp.zeros(group.preact_size, self.dtype) for group in self.groups),
            tuple(jnp.zeros(self.leaves[d.leaf].shape, self.leaves[d.leaf].dtype) for d in self.dense),
        )
        # The transpose of a linear map needs no value of its inputs, so that zeros do.
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
                # `matrix` permutes entries, so its transpose puts each row's entry where it came from.
                (out[member.leaf],) = jax.linear_transpose(member.matrix, leaf)(rows)
        for leaf, value in zip(self.dense, dense, strict=True):
            out[leaf.leaf] = value.astype(self.leaves[leaf.leaf].dtype)
        return jax.tree.unflatten(self.treedef, out)

    def matrices(self, params: Params) -> tuple[jax.Array, ...]:
        """The leaves of every group as one (F, Z) matrix of `dtype`, the inverse of `gradient`."""
        leaves = jax.tree.leaves(params)
        return tuple(
            jnp.concatenate([m.matrix(leaves[m.leaf]).astype(self.dtype) for m in group.members])
            for group in self.groups
        )

    # What follows is read off the trace once, since every function above asks for it at every trace.

    @cached_property
    def linear_part(self) -> LinearPart:
        """The linear part of the step."""
        return LinearPart(self._trace, self.groups, self.dense)

    @cached_property
    def _generic_values(self) -> dict:
        return generic_values(self._trace)

    @cached_property
    def _residuals(self) -> tuple:
        """The variables that a step leaves: factors of the groups, and what the linear part reads."""
        reads = [v for e in self._trace.linear for v in variables(e.inputs) if v in self._trace.stepwise]
        factors = [m.factor for group in self.groups for m in group.members if m.factor is not None]
        # A set with an order: a window's buffers must come in the same order at every trace.
        return tuple(dict.fromkeys(factors + reads))

    @cached_property
    def _params_only(self) -> list[Equation]:
        """Equations of the parameters alone: made anew, since they are the same for all lanes."""
        return [e for e in self._trace.known if self._trace.stepwise.isdisjoint(e.outputs)]

    @cached_property
    def _weight_leaves(self) -> tuple[int, ...]:
        """Places of the leaves that the linear part reads, as they are or through other equations."""
        needed = {v for e in self._trace.linear for v in variables(e.inputs)}
        for e in reversed(self._params_only):  # from what is read back to the leaves
            if not needed.isdisjoint(e.outputs):
                needed.update(variables(e.inputs))
        return tuple(i for i, v in enumerate(self._trace.params) if v in needed)

    def _known_values(self, params: Params, residuals: tuple) -> dict:
        """Values of all variables that the linear part reads and that are no tangents."""
        env = self._trace.consts | dict(zip(self._trace.params, jax.tree.leaves(params), strict=True))
        for e in self._params_only:
            env.update(zip(e.outputs, self._known(e, env), strict=True))
        return env | dict(zip(self._residuals, residuals, strict=True))

    def _known(self, e: Equation, env: dict) -> list:
        """The outputs of an equation without tangents."""
        values = evaluate(e, [read(env, v) for v in e.inputs])
        # XLA:CPU takes sines for cheap, and computes those of the parameters anew in every lane.
        once = e.primitive.name in ("sin", "cos") and self._trace.stepwise.isdisjoint(e.outputs)
        return [computed_once(a) for a in values] if once else values

    def _narrow(self, tangent: jax.Array | None) -> jax.Array | None:
        """A tangent of hidden in the dtype of the cell's program."""
        return None if tangent is None else tangent.astype(dtype_of(self._trace.hidden))


def _factor(member: Member, known: dict, dtype) -> jax.Array:
    one = jnp.ones(1, dtype) if member.factor is None else known[member.factor].ravel()
    return member.sign * one.astype(dtype)
