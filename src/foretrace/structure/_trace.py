"""Reads jaxprs, the only file that does: a cell's traced derivative as one list of equations."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend import core as jex

from foretrace._checks import UserError, UserTypeError
from foretrace.structure._equations import PRODUCTS, Equation, evaluate

# Equations that only call a jaxpr, which is inlined: JAX 0.10 and later name that of `jax.jit` "jit".
_CALLS = {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2"}


class _Branch(NamedTuple):
    """A branch of a `cond` while it is inlined.

    Attributes:
        index: variable of the branch that is taken.
        place: index of this branch.
        produced: outputs of its equations.
        masked: variables that are 0 where the branch is not taken, or 1 where they divide.
    """

    index: Any
    place: int
    produced: set
    masked: dict


class Trace:
    """The equations of `jax.jvp` of a cell's step in (params, hidden), inlined and without dead code."""

    def __init__(self, function: Callable, params: list, hidden: Any, x: list):
        def jvp(params, hidden, x, param_tangents, hidden_tangent):
            step = lambda p, h: function(p, h, x)  # noqa: E731
            return jax.jvp(step, (params, hidden), (param_tangents, hidden_tangent))

        try:
            closed = jax.make_jaxpr(jvp)(params, hidden, x, params, hidden)
        except (NotImplementedError, TypeError, ValueError) as error:  # such as of a callback
            raise _not_forwards(error) from error
        self.consts = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
        if any(isinstance(value, Tracer) for value in closed.consts):
            raise UserTypeError(
                "cell.step must not close over a traced value; pass it as a parameter or as an input."
            )
        inputs = iter(closed.jaxpr.invars)
        self.params = [next(inputs) for _ in params]
        self.hidden = next(inputs)
        self.x = [next(inputs) for _ in x]
        self.param_tangents = [next(inputs) for _ in params]
        self.hidden_tangent = next(inputs)

        # A jvp is linear in its tangents, so whatever reads one is linear in it, and is one.
        self.tangents = {*self.param_tangents, self.hidden_tangent}
        self._equations: list[Equation] = []
        self._branches: list[_Branch] = []
        self.output, self.tangent_output = self._inline(closed.jaxpr, {})
        # Dead code goes: a leaf counts as used as many times as its tangent is read.
        live = set(variables([self.output, self.tangent_output]))
        needed = []
        for e in reversed(self._equations):
            if not live.isdisjoint(e.outputs):
                needed.append(e)
                live.update(variables(e.inputs))
        self.known, self.linear = [], []
        for e in reversed(needed):
            if e.primitive.name == "custom_lin":
                raise _not_forwards("jax.custom_vjp, whose derivative is known backwards alone")
            (self.linear if self.is_tangent(e.outputs[0]) else self.known).append(e)
        # The known variables that depend on the hidden state or the input.
        self.stepwise = {self.hidden, *self.x}
        for e in self.known:
            if not self.stepwise.isdisjoint(variables(e.inputs)):
                self.stepwise.update(e.outputs)
            elif e.primitive.name == "random_bits":
                raise UserError(
                    "cell.step must draw from a key that comes with the input; got a draw from a constant "
                    "key, which is the same at every step; make the key a part of the input, x, a new one "
                    "for each step, or draw once, outside of the step."
                )
        self.producers = {v: e for e in self.known for v in e.outputs}
        self.uses: dict[Any, list[Equation | None]] = {}
        for e in self.linear:
            for v in variables(e.inputs):
                self.uses.setdefault(v, []).append(e)
        self.uses.setdefault(self.tangent_output, []).append(None)

    def _inline(self, jaxpr, outer: dict, *, is_split: bool = False) -> list:
        """Appends the equations of a jaxpr, and returns its outputs.

        Args:
            jaxpr: the jaxpr.
            outer: its variables, those of its inputs at first, by the variables of the trace.
            is_split: whether loops in it are linear in the tangents already.
        """

        def rename(v):
            return v if isinstance(v, jex.Literal) else outer.get(v, v)

        for e in jaxpr.eqns:
            inputs = tuple(rename(v) for v in e.invars)
            name = e.primitive.name
            reads_tangents = any(self.is_tangent(v) for v in inputs)
            if name in _CALLS:
                inner = e.params.get("jaxpr", e.params.get("call_jaxpr"))
                outputs = self._inline_closed(inner, inputs, is_split=is_split)
            elif name == "cond" and reads_tangents:
                outputs = self._select(e.params["branches"], inputs)
            elif name in ("scan", "while") and reads_tangents and not is_split:
                outputs = self._split(e, inputs)
            else:
                outputs = self._append(e, inputs)
            outer.update(zip(e.outvars, outputs, strict=True))
        return [rename(v) for v in jaxpr.outvars]

    def _inline_closed(self, closed, inputs, *, is_split: bool = False) -> list:
        # In JAX 0.10 a jaxpr with constants is a class of its own that holds the plain one.
        constants, inner = getattr(closed, "consts", ()), getattr(closed, "jaxpr", closed)
        self.consts.update(zip(inner.constvars, constants, strict=True))
        return self._inline(inner, dict(zip(inner.invars, inputs, strict=True)), is_split=is_split)

    def _append(self, e, inputs: tuple) -> tuple:
        # A jaxpr may be called twice, so its variables need names of their own at each call.
        outputs = tuple(jex.Var(v.aval) for v in e.outvars)
        if any(self.is_tangent(v) for v in inputs):
            self.tangents.update(outputs)
            inputs = tuple(self._masked(e.primitive.name, i, v) for i, v in enumerate(inputs))
        self._equations.append(Equation(e.primitive, e.params, inputs, outputs))
        for branch in self._branches:
            branch.produced.update(outputs)
        return outputs

    def _append_traced(self, function: Callable, inputs, *, is_split: bool = False) -> list:
        """Appends the equations of a function of arrays."""
        shapes = (jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in inputs)
        return self._inline_closed(jax.make_jaxpr(function)(*shapes), inputs, is_split=is_split)

    def _select(self, branches, inputs: tuple) -> list:
        """A `cond`: all of its branches, then a selection, so that weights in a branch are seen.

        Lanes side by side take all branches anyway.
        """
        index, *operands = inputs
        outputs = []
        for i, branch in enumerate(branches):
            self._branches.append(_Branch(index, i, set(), {}))
            outputs.append(self._inline_closed(branch, operands))
            self._branches.pop()
        selected = []
        for cases in zip(*outputs, strict=True):
            selected += self._append_traced(jax.lax.select_n, (index, *cases))
        return selected

    def _masked(self, name: str, i: int, v) -> Any:
        """The operand i of a linear equation in branches, made harmless where these are not taken.

        A coefficient may be infinite there, and the transpose of a selection multiplies it by zero.
        """
        divides = name == "div" and i == 1
        if isinstance(v, jex.Literal) or self.is_tangent(v) or not (divides or name in PRODUCTS):
            return v

        def mask(index, value, place=0):
            return jnp.where(index == place, value, jnp.full_like(value, divides))

        for branch in reversed(self._branches):  # from the innermost outwards
            # Factors from outside of the branch are finite, and weights must be seen as they are.
            if divides or v in branch.produced:
                if (v, divides) not in branch.masked:
                    masked = self._append_traced(partial(mask, place=branch.place), (branch.index, v))
                    branch.masked[v, divides] = masked[0]
                v = branch.masked[v, divides]
        return v

    def _split(self, e, inputs: tuple) -> list:
        """A loop over values and tangents at once: one over values, and a linear one over tangents.

        Raises:
            ValueError: the number of its steps is not known, so that it cannot run backwards.
        """
        if e.primitive.name == "while":
            raise UserError(
                "cell.step must be differentiable backwards; got a lax.while_loop, or a lax.fori_loop "
                "whose bounds are computed; use lax.scan, or lax.fori_loop with ints as bounds."
            )
        places = [i for i, v in enumerate(inputs) if self.is_tangent(v)]
        floats = [i for i, v in enumerate(e.outvars) if _is_inexact(v)]

        def both(*values):
            def loop(*tangents):
                changed = dict(zip(places, tangents, strict=True))
                return evaluate(e, [changed.get(i, value) for i, value in enumerate(values)])

            outputs, push = jax.linearize(loop, *(jnp.zeros_like(values[i]) for i in places))
            tangents = push(*(values[i] for i in places))
            return outputs, [tangents[i] for i in floats]

        try:
            outputs = self._append_traced(both, inputs, is_split=True)
        except NotImplementedError as error:  # of a custom_vjp, which in a loop has no name of its own
            raise _not_forwards(error) from error
        values, tangents = outputs[: len(e.outvars)], outputs[len(e.outvars) :]
        # An output that is a value has no derivative in the tangents; one that is a tangent has only that.
        for i, tangent in zip(floats, tangents, strict=True):
            if self.is_tangent(tangent):
                values[i] = tangent
        return values

    def is_tangent(self, v) -> bool:
        return isinstance(v, jex.Var) and v in self.tangents

    @property
    def rounding(self) -> float:
        """The relative rounding of its coarsest number."""
        outputs = (v for e in (*self.known, *self.linear) for v in e.outputs if _is_inexact(v))
        dtypes = {dtype_of(v) for v in (*outputs, *self.params, self.hidden)}
        return max(float(jnp.finfo(dtype).eps) for dtype in dtypes)

    def only_use(self, v) -> Equation | None:
        """The one linear equation that reads v, or None where there is none or more than one."""
        uses = self.uses.get(v, [])
        return uses[0] if len(uses) == 1 else None


def _not_forwards(cause: Any) -> UserTypeError:
    return UserTypeError(
        f"cell.step must be differentiable forwards; got {str(cause).strip().splitlines()[0]}; for a "
        "jax.custom_vjp use jax.custom_jvp, or for f with the "
        "derivative of s write s(z) + jax.lax.stop_gradient(f(z) - s(z))."
    )


def dtype_of(v: Any) -> Any:
    """The dtype of a variable of the program."""
    return v.aval.dtype


def _is_inexact(v) -> bool:
    return jnp.issubdtype(v.aval.dtype, jnp.inexact)


def variables(operands) -> list:
    return [v for v in operands if isinstance(v, jex.Var)]


def read(env: dict, v):
    return v.val if isinstance(v, jex.Literal) else env[v]
