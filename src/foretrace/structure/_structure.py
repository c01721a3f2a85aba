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
import numpy as np

from foretrace._types import Hidden, Input, Params
from foretrace._xla import at_construction, computed_once, jit_unoptimised
from foretrace.structure._equations import ELEMENTWISE, FIXED_PLACES, Equation, evaluate, nonzeros
from foretrace.structure._groups import DenseLeaf, Group, Member
from foretrace.structure._trace import Trace, dtype_of, read, variables

# A rule for linear equations: `(equation, values of its inputs) -> values of its outputs`. A tangent that
# is zero everywhere is written None, so that nothing is computed from it.
Rule = Callable[[Equation, list], list]


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
        env = self._known_values(params, residuals)
        rule = self._without_weights(self._linear) if without_weights else self._linear
        return self._run(env, rule, self._narrow(tangent), preacts, dense).astype(self.dtype)

    def cut(self, params: Params, residuals: tuple, tangent: Any, preacts: Any = None) -> tuple:
        """The linear part cut at every z, which becomes an input, without products with a group's weights.

        Args:
            params: the cell's parameters.
            residuals: of the step.
            tangent: of hidden, (S,) or None.
            preacts: of every z, (Z,) or None each.

        Returns:
            Tangents of hidden'; of the factor that every group's weights multiply, in the order of
            `recurrent_members`; and of what reaches each z beside those products. None where all is zero.
        """
        out = self._cut(self._known_values(params, residuals), self._linear, self._narrow(tangent), preacts)
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
        rule = self._generic_rule()
        rule = self._without_weights(rule) if without_weights else rule
        out = self._run(self._generic_values, rule, self._narrow(tangent), preacts, dense)
        return out.astype(self.dtype)

    def generic_cut(self, tangent: Any, preacts: Any = None) -> tuple:
        """Like `cut`, with every number that is known only at run time replaced by a random one."""
        return self._cut(self._generic_values, self._generic_rule(), self._narrow(tangent), preacts)

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

    @cached_property
    def recurrent_members(self) -> tuple[Member, ...]:
        """The members whose factor depends on the hidden state, group by group."""
        return tuple(m for group in self.groups for m in group.members if m.recurrent_use is not None)

    @cached_property
    def is_elementwise(self) -> bool:
        """Whether the linear part only scales, adds and moves entries, beside products with weights.

        The non-zeros of all its Jacobians then have fixed places.
        """
        reached = {self._trace.hidden_tangent, *self._preact_index}
        elementwise = not self.dense
        for e in self._trace.linear:
            if not reached.isdisjoint(variables(e.inputs)):
                reached.update(e.outputs)
                elementwise &= e.primitive.name in ELEMENTWISE or e in self._use_index
        return elementwise

    def fixed_factors(self) -> tuple[bool, ...]:
        """Per recurrent member, whether d factor / d hidden is the same at every step."""
        env = dict.fromkeys(self._trace.stepwise, True)

        # The same program, run on flags in place of numbers: True once a tangent met a number of the step.
        def rule(e, values):
            pairs = zip(e.inputs, values, strict=True)
            present = [(v, flag) for v, flag in pairs if flag is not None and variables([v])]
            if not any(self._trace.is_tangent(v) for v, _ in present):
                return [None] * len(e.outputs)
            return [any(flag for _, flag in present)] * len(e.outputs)

        _, flags, _ = self._cut(env, rule, False)
        return tuple(flag is False for flag in flags)

    # What follows is read off the trace once, since every function above asks for it at every trace.

    @cached_property
    def _preact_index(self) -> dict:
        return {group.preact: i for i, group in enumerate(self.groups)}

    @cached_property
    def _use_index(self) -> dict[Any, int]:
        return {member.recurrent_use: i for i, member in enumerate(self.recurrent_members)}

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

    def _run(self, known: dict, rule: Rule, tangent: Any, preacts: Any = None, dense: Any = None) -> Any:
        """The tangent of hidden': the linear part, equation by equation.

        Args:
            known: values of the variables that are no tangents.
            rule: what becomes of an equation.
            tangent: of hidden.
            preacts: of every z, added to what the equations give.
            dense: of every dense leaf.
        """
        trace = self._trace
        preacts = preacts or [None] * len(self.groups)
        leaves = [trace.param_tangents[leaf.leaf] for leaf in self.dense]
        env = known | {trace.hidden_tangent: tangent}
        env.update(zip(leaves, dense or [None] * len(leaves), strict=True))
        for e in trace.linear:
            outputs = rule(e, [_operand(env, v) for v in e.inputs])
            for v, value in zip(e.outputs, outputs, strict=True):
                # A tangent of z enters at z, beside the one that the equations give it.
                shift = preacts[self._preact_index[v]] if v in self._preact_index else None
                env[v] = _plus(value, shift, v.aval)
        out = _operand(env, trace.tangent_output)
        like = trace.tangent_output.aval
        return jnp.zeros(like.shape, like.dtype) if out is None else out

    def _cut(self, known: dict, rule: Rule, tangent: Any, preacts: Any = None) -> tuple:
        """See `cut`."""
        factors: list = [None] * len(self._use_index)
        rests: list = [None] * len(self.groups)

        def cut_rule(e, values):
            if e in self._use_index:
                pairs = zip(e.inputs, values, strict=True)
                factors[self._use_index[e]] = next(a for v, a in pairs if self._trace.is_tangent(v))
                return [None]
            outputs = list(rule(e, values))
            # What else reaches z is told apart, and z goes on with the tangent of the caller alone.
            for i, v in enumerate(e.outputs):
                if v in self._preact_index:
                    rests[self._preact_index[v]], outputs[i] = outputs[i], None
            return outputs

        return self._run(known, cut_rule, tangent, preacts), factors, rests

    def _without_weights(self, rule: Rule) -> Rule:
        """The rule, without products of a group's weights with the tangent of their factor."""
        return lambda e, values: [None] if e in self._use_index else rule(e, values)

    def _linear(self, e: Equation, values: list) -> list:
        """The rule of the derivative itself."""
        pairs = zip(e.inputs, values, strict=True)
        present = [value for v, value in pairs if self._trace.is_tangent(v) and value is not None]
        if not present:
            return [None] * len(e.outputs)
        # A sum with one zero is the other: the most usual case of a product rule with one zero factor.
        if e.primitive.name in ("add", "add_any") and len(present) == 1:
            return present
        filled = [
            jnp.zeros(v.aval.shape, v.aval.dtype) if value is None else value
            for v, value in zip(e.inputs, values, strict=True)
        ]
        return evaluate(e, filled)

    def _generic_rule(self) -> Rule:
        """The rule of a cell with the same program and other numbers.

        Every branch of a selection counts, since which one is taken may change from step to step; an
        equation whose non-zeros may move spreads everywhere.
        """
        # Positive numbers of one size: sums of them do not cancel, products do not vanish.
        trace, rng = self._trace, np.random.default_rng(1)

        def rule(e, values):
            known = [v for v in variables(e.inputs) if not trace.is_tangent(v)]
            if all(v in self._generic_values for v in known) and e.primitive.name in FIXED_PLACES:
                if e.primitive.name == "div":  # a denominator that is always zero says nothing of places
                    below: Any = values[1]
                    values = [values[0], jnp.where(below == 0, 1, below)]
                return self._linear(e, values)
            if e.primitive.name == "select_n":
                # Each entry is chosen on its own, so that none is like another for every choice.
                weighted = [
                    a * rng.uniform(0.5, 1.5, a.shape).astype(a.dtype) for a in values[1:] if a is not None
                ]
                return [sum(weighted[1:], start=weighted[0]) if weighted else None]
            pairs = zip(e.inputs, values, strict=True)
            return _dense_random_map(rng, [a for v, a in pairs if trace.is_tangent(v) and a is not None], e)

        return rule

    @cached_property
    def _generic_values(self) -> dict:
        """Constants as they are; random numbers for known floats, zero where these always are.

        So a constant mask on a weight shows as zeros. Known values that are no floats, such as an index
        that comes with the input, are left out.
        """
        trace, rng = self._trace, np.random.default_rng(0)
        reads = {v: None for e in trace.linear for v in variables(e.inputs) if not trace.is_tangent(v)}
        floats = [v for v in reads if jnp.issubdtype(v.aval.dtype, jnp.inexact)]
        # In one compiled program, since there are hundreds of small operations; variables cannot leave it,
        # so that their order comes out beside the values.
        names: list = []

        @jit_unoptimised
        def find():
            constant, places = dict(trace.consts), {}

            def place(v):
                """Ones where v may differ from zero."""
                if not variables([v]) or v in constant:
                    return (jnp.asarray(read(constant, v)) != 0).astype(v.aval.dtype)
                return places.get(v, jnp.ones(v.aval.shape, v.aval.dtype))

            def value(v):
                # Away from zero, so that a product of many of them is not taken for a zero by underflow.
                parts = [rng.uniform(0.5, 1.5, v.aval.shape) for _ in range(2)]
                number = parts[0] + 1j * parts[1] if jnp.iscomplexobj(v.aval) else parts[0]
                return place(v) * jnp.asarray(number, v.aval.dtype)

            # Constants are computed; of other floats only the places are followed.
            for e in trace.known:
                if all(v in constant for v in variables(e.inputs)):
                    values = evaluate(e, [read(constant, v) for v in e.inputs])
                    constant.update(zip(e.outputs, values, strict=True))
                elif all(jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in (*e.inputs, *e.outputs)):
                    masks = nonzeros(e, [place(v) for v in e.inputs])
                    places.update(zip(e.outputs, masks, strict=True) if masks else ())
            values = {v: value(v) for v in floats if v not in constant} | constant
            names.extend(values)
            return list(values.values())

        with at_construction():  # or the first trace to ask would keep its own tracers here
            return dict(zip(names, find(), strict=True))


def _factor(member: Member, known: dict, dtype) -> jax.Array:
    one = jnp.ones(1, dtype) if member.factor is None else known[member.factor].ravel()
    return member.sign * one.astype(dtype)


def _operand(env: dict, v: Any) -> Any:
    return env.get(v) if variables([v]) else read(env, v)


def _plus(value, shift, like):
    if shift is None:
        return value
    shift = shift.reshape(like.shape).astype(like.dtype)
    return shift if value is None else value + shift


def _dense_random_map(rng, tangents: list, e: Equation) -> list:
    """A random linear map from all entries of the tangents to all entries of the outputs."""
    if not tangents:
        return [None] * len(e.outputs)
    sums = [jnp.sum(jnp.asarray(rng.uniform(0.5, 1.5, a.shape), a.real.dtype) * a.real) for a in tangents]
    total = sum(sums[1:], start=sums[0])
    return [
        (total * jnp.asarray(rng.uniform(0.5, 1.5, v.aval.shape), total.dtype)).astype(v.aval.dtype)
        for v in e.outputs
    ]
