"""A cell's traced derivative as a program in two parts: a known one, and one linear in the tangents."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._xla import jit_unoptimised
from foretrace.structure._trace import (
    ELEMENTWISE,
    FIXED_PLACES,
    DenseLeaf,
    Equation,
    Group,
    Trace,
    evaluate,
    nonzeros,
    read,
    variables,
)


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
        needed = {v for e in trace.linear for v in variables(e.inputs)}
        for e in reversed(self._fixed):
            if not needed.isdisjoint(e.outputs):
                needed.update(variables(e.inputs))
        self.weights = tuple(i for i, v in enumerate(trace.params) if v in needed)
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

    def tangent(
        self, params: list, residuals: tuple, hidden, preacts, dense, direct: bool = False
    ) -> jax.Array | None:
        """Tangent of the new hidden state; tangents that are zero are written None.

        With `direct` the products of a group's weights with the tangent of their factor are left out.
        """
        env = self._known_values(params, residuals)
        env[self._trace.hidden_tangent] = hidden
        env.update(zip(self._dense, dense, strict=True))
        for e in self._trace.linear:
            values = [self._operand(env, v) for v in e.inputs]
            outputs = [None] if direct and e in self.transports else self._linear_step(e, values)
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

    def spread(self, hidden, preacts, dense, direct: bool = False) -> jax.Array | None:
        """`tangent` of a generic cell with the same program.

        Every number that depends on parameters, state or input is replaced by a random one, unless a
        constant of the program multiplies it by zero; so entries of this map are zero only where those of
        the cell always are. An equation whose non-zeros may move from step to step spreads everywhere.
        """
        trace, rng = self._trace, np.random.default_rng(1)
        env = self._generic | dict.fromkeys(trace.param_tangents) | {trace.hidden_tangent: hidden}
        env.update(zip(self._dense, dense, strict=True))
        for e in trace.linear:
            values = [env.get(v) if variables([v]) else read(env, v) for v in e.inputs]
            tangents = [a for v, a in zip(e.inputs, values, strict=True) if trace.is_tangent(v)]
            known = all(v in env for v in variables(e.inputs))
            if direct and e in self.transports:
                outputs = [None]
            elif known and e.primitive.name in FIXED_PLACES:
                if e.primitive.name == "div":
                    below: Any = values[1]
                    values[1] = jnp.where(below == 0, 1, below)
                outputs = self._linear_step(e, values)
            elif e.primitive.name == "select_n":
                branches = [rng.uniform(0.5, 1.5) * a for a in values[1:] if a is not None]
                outputs = [sum(branches[1:], start=branches[0]) if branches else None]
            else:
                outputs = _everywhere(rng, [a for a in tangents if a is not None], e)
            for v, value in zip(e.outputs, outputs, strict=True):
                if v in self._preacts:
                    value = _plus(value, preacts[self._preacts[v]], v.aval)
                env[v] = value
        return env.get(trace.tangent_output)

    @cached_property
    def _generic(self) -> dict:
        """For `spread`: constants as they are; for known floats random numbers, zero where they always are.

        What is known but not a float, such as an index that comes with the input, is left out.
        """
        trace, rng = self._trace, np.random.default_rng(0)
        reads = {v: None for e in trace.linear for v in variables(e.inputs) if not trace.is_tangent(v)}
        floats = [v for v in reads if jnp.issubdtype(v.aval.dtype, jnp.inexact)]
        known: list = []

        @jit_unoptimised
        def find():
            constant, places = dict(trace.consts), {}

            def place(v):
                """Where v is not always zero, as ones and zeros."""
                if not variables([v]) or v in constant:
                    return (jnp.asarray(read(constant, v)) != 0).astype(v.aval.dtype)
                return places.get(v, jnp.ones(v.aval.shape, v.aval.dtype))

            def value(v):
                parts = [rng.uniform(0.5, 1.5, v.aval.shape) for _ in range(2)]
                number = parts[0] + 1j * parts[1] if jnp.iscomplexobj(v.aval) else parts[0]
                return place(v) * jnp.asarray(number, v.aval.dtype)

            for e in trace.known:
                if all(v in constant for v in variables(e.inputs)):
                    values = evaluate(e, [read(constant, v) for v in e.inputs])
                    constant.update(zip(e.outputs, values, strict=True))
                elif all(jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in (*e.inputs, *e.outputs)):
                    found = nonzeros(e, [place(v) for v in e.inputs])
                    places.update(zip(e.outputs, found, strict=True) if found else ())
            values = {v: value(v) for v in floats if v not in constant} | constant
            known.extend(values)
            return list(values.values())

        with jax.ensure_compile_time_eval():  # or the first trace to ask would keep its own tracers here
            return dict(zip(known, find(), strict=True))

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


def _everywhere(rng, tangents: list, e: Equation) -> list:
    """A random linear map from all entries of the tangents to all entries of the outputs."""
    if not tangents:
        return [None] * len(e.outputs)
    sums = [jnp.sum(jnp.asarray(rng.uniform(0.5, 1.5, a.shape), a.real.dtype) * a.real) for a in tangents]
    total = sum(sums[1:], start=sums[0])
    return [
        (total * jnp.asarray(rng.uniform(0.5, 1.5, v.aval.shape), total.dtype)).astype(v.aval.dtype)
        for v in e.outputs
    ]
