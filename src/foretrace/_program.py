"""A cell's traced derivative as a program in two parts: a known one, and one linear in the tangents."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from foretrace._jaxpr import ELEMENTWISE, DenseLeaf, Equation, Group, Trace, evaluate, read, variables


class Program:
    """The traced jvp, cut into a known and a linear part."""

    def __init__(self, trace: Trace, groups: Sequence[Group], dense: Sequence[DenseLeaf]):
        self._trace = trace
        self._preacts = {group.preact: i for i, group in enumerate(groups)}
        self._dense = [trace.param_tangents[leaf.leaf] for leaf in dense]
        stepwise = {trace.hidden, *trace.x}
        for e in trace.known:
            if not stepwise.isdisjoint(variables(e.inputs)):
                stepwise.update(e.outputs)
        # What depends on the parameters alone is recomputed, not stored: it is the same for all lanes.
        self._fixed = [e for e in trace.known if stepwise.isdisjoint(e.outputs)]
        reads = [v for e in trace.linear for v in variables(e.inputs) if v in stepwise]
        factors = [m.factor for group in groups for m in group.members if m.factor is not None]
        self.residuals = tuple(dict.fromkeys(factors + reads))
        members = [m for group in groups for m in group.members]
        self.transports = [m.transport for m in members if m.transport is not None]
        # Where every other equation only scales, adds or moves entries, non-zeros have fixed places.
        reached, self.is_elementwise = {trace.hidden_tangent, *self._preacts}, not dense
        for e in trace.linear:
            if not reached.isdisjoint(variables(e.inputs)):
                reached.update(e.outputs)
                self.is_elementwise &= e.primitive.name in ELEMENTWISE or e in self.transports

    def forward(self, params: list, hidden: jax.Array, x: list) -> tuple[jax.Array, tuple]:
        trace = self._trace
        env = trace.consts | dict(zip(trace.params, params, strict=True))
        env |= dict(zip(trace.x, x, strict=True)) | {trace.hidden: hidden}
        for e in trace.known:
            env.update(zip(e.outputs, evaluate(e, [read(env, v) for v in e.inputs]), strict=True))
        return read(env, trace.output), tuple(env[v] for v in self.residuals)

    def tangent(self, params: list, residuals: tuple, hidden, preacts, dense) -> jax.Array | None:
        """Tangent of the new hidden state; tangents that are zero are written None."""
        env = self._known_values(params, residuals)
        env[self._trace.hidden_tangent] = hidden
        env.update(zip(self._dense, dense, strict=True))
        for e in self._trace.linear:
            outputs = self._linear_step(e, [self._operand(env, v) for v in e.inputs])
            for v, value in zip(e.outputs, outputs, strict=True):
                if v in self._preacts:
                    value = _plus(value, preacts[self._preacts[v]], v.aval)
                env[v] = value
        return self._operand(env, self._trace.tangent_output)

    def cut(self, params: list, residuals: tuple, hidden, preacts, every_branch: bool = False):
        """The linear part with every z an input and no product with a leaf.

        Returns:
            Tangents of the new hidden state, of the factor of every transport (by its equation's index in
            `transports`), and what reaches each z beside those products. With `every_branch` a selection
            answers with the sum of its branches, so that non-zeros show whatever the selection is.
        """
        env = self._known_values(params, residuals)
        env[self._trace.hidden_tangent] = hidden
        factors: list = [None] * len(self.transports)
        rests: list = [None] * len(self._preacts)
        for e in self._trace.linear:
            values = [self._operand(env, v) for v in e.inputs]
            if e in self.transports:
                factors[self.transports.index(e)] = next(
                    value for v, value in zip(e.inputs, values, strict=True) if self._trace.is_tangent(v)
                )
                outputs = [None]
            elif every_branch and e.primitive.name == "select_n":
                branches = [value for value in values[1:] if value is not None]
                outputs = [sum(branches[1:], start=branches[0]) if branches else None]
            else:
                outputs = self._linear_step(e, values)
            for v, value in zip(e.outputs, outputs, strict=True):
                if v in self._preacts:
                    i = self._preacts[v]
                    rests[i], value = value, _plus(None, preacts[i], v.aval)
                env[v] = value
        return self._operand(env, self._trace.tangent_output), factors, rests

    def _known_values(self, params: list, residuals: tuple) -> dict:
        env = self._trace.consts | dict(zip(self._trace.params, params, strict=True))
        for e in self._fixed:
            env.update(zip(e.outputs, evaluate(e, [read(env, v) for v in e.inputs]), strict=True))
        return env | dict(zip(self.residuals, residuals, strict=True))

    def _operand(self, env, v):
        return env.get(v) if self._trace.is_tangent(v) else read(env, v)

    def _linear_step(self, e: Equation, values: list) -> list:
        pairs = zip(e.inputs, values, strict=True)
        present = [value for v, value in pairs if self._trace.is_tangent(v) and value is not None]
        if not present:
            return [None] * len(e.outputs)
        if e.primitive.name in ("add", "add_any") and len(present) == 1:
            return present
        filled = [
            jnp.zeros(v.aval.shape, v.aval.dtype) if value is None else value
            for v, value in zip(e.inputs, values, strict=True)
        ]
        return evaluate(e, filled)


def _plus(value, shift, like):
    if shift is None:
        return value
    shift = shift.reshape(like.shape).astype(like.dtype)
    return shift if value is None else value + shift
