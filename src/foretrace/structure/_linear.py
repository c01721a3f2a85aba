"""The linear part of a cell's traced step, run equation by equation under a rule.

Rules differ in what they make of an equation: the derivative, the derivative without the paths through
weights, the derivative of a cell with other numbers (`_generic.py`).
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax.numpy as jnp

from foretrace.structure._equations import ELEMENTWISE, Equation, evaluate
from foretrace.structure._groups import DenseLeaf, Group
from foretrace.structure._trace import Trace, read, variables

# A rule for linear equations: `(equation, values of its inputs) -> values of its outputs`. A tangent that
# is zero everywhere is written None, so that nothing is computed from it.
Rule = Callable[[Equation, list], list]


class LinearPart:
    """The linear equations of a step, and where groups and dense leaves enter them.

    Attributes:
        trace: of the step.
        recurrent_members: the members whose factor depends on the hidden state, group by group.
    """

    def __init__(self, trace: Trace, groups: tuple[Group, ...], dense: tuple[DenseLeaf, ...]):
        self.trace, self._groups, self._dense = trace, groups, dense
        members = (m for group in groups for m in group.members)
        self.recurrent_members = tuple(m for m in members if m.recurrent_use is not None)
        self._preact_index = {group.preact: i for i, group in enumerate(groups)}
        uses = enumerate(m.recurrent_use for m in self.recurrent_members)
        self._use_index: dict[Any, int] = {use: i for i, use in uses}

    @cached_property
    def is_elementwise(self) -> bool:
        """Whether the linear part only scales, adds and moves entries, beside products with weights.

        The non-zeros of all its Jacobians then have fixed places.
        """
        reached = {self.trace.hidden_tangent, *self._preact_index}
        elementwise = not self._dense
        for e in self.trace.linear:
            if not reached.isdisjoint(variables(e.inputs)):
                reached.update(e.outputs)
                elementwise &= e.primitive.name in ELEMENTWISE or e in self._use_index
        return elementwise

    def fixed_factors(self) -> tuple[bool, ...]:
        """Per recurrent member, whether d factor / d hidden is the same at every step."""
        env = dict.fromkeys(self.trace.stepwise, True)

        # The same program, run on flags in place of numbers: True once a tangent met a number of the step.
        def rule(e, values):
            pairs = zip(e.inputs, values, strict=True)
            present = [(v, flag) for v, flag in pairs if flag is not None and variables([v])]
            if not any(self.trace.is_tangent(v) for v, _ in present):
                return [None] * len(e.outputs)
            return [any(flag for _, flag in present)] * len(e.outputs)

        _, flags, _ = self.cut(env, rule, False)
        return tuple(flag is False for flag in flags)

    def run(self, known: dict, rule: Rule, tangent: Any, preacts: Any = None, dense: Any = None) -> Any:
        """The tangent of hidden': the linear part, equation by equation.

        Args:
            known: values of the variables that are no tangents.
            rule: what becomes of an equation.
            tangent: of hidden.
            preacts: of every z, added to what the equations give.
            dense: of every dense leaf.
        """
        trace = self.trace
        preacts = preacts or [None] * len(self._groups)
        leaves = [trace.param_tangents[leaf.leaf] for leaf in self._dense]
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

    def cut(self, known: dict, rule: Rule, tangent: Any, preacts: Any = None) -> tuple:
        """The linear part cut at every z, which becomes an input, without products with a group's weights.

        Args:
            known: values of the variables that are no tangents.
            rule: what becomes of an equation.
            tangent: of hidden.
            preacts: of every z.

        Returns:
            Tangents of hidden'; of the factor that every group's weights multiply, in the order of
            `recurrent_members`; and of what reaches each z beside those products. None where all is zero.
        """
        factors: list = [None] * len(self._use_index)
        rests: list = [None] * len(self._groups)

        def cut_rule(e, values):
            if e in self._use_index:
                pairs = zip(e.inputs, values, strict=True)
                factors[self._use_index[e]] = next(a for v, a in pairs if self.trace.is_tangent(v))
                return [None]
            outputs = list(rule(e, values))
            # What else reaches z is told apart, and z goes on with the tangent of the caller alone.
            for i, v in enumerate(e.outputs):
                if v in self._preact_index:
                    rests[self._preact_index[v]], outputs[i] = outputs[i], None
            return outputs

        return self.run(known, cut_rule, tangent, preacts), factors, rests

    def without_weights(self, rule: Rule) -> Rule:
        """The rule, without products of a group's weights with the tangent of their factor."""
        return lambda e, values: [None] if e in self._use_index else rule(e, values)

    def derivative(self, e: Equation, values: list) -> list:
        """The rule of the derivative itself."""
        pairs = zip(e.inputs, values, strict=True)
        present = [value for v, value in pairs if self.trace.is_tangent(v) and value is not None]
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


def _operand(env: dict, v: Any) -> Any:
    return env.get(v) if variables([v]) else read(env, v)


def _plus(value, shift, like):
    if shift is None:
        return value
    shift = shift.reshape(like.shape).astype(like.dtype)
    return shift if value is None else value + shift
