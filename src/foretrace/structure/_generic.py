"""A cell with the same program and other numbers: it shows which non-zeros no number can move.

Every number that is known only at run time is replaced by a random one, so that an entry of a Jacobian is
zero only if it is zero for all parameters, states and inputs.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from foretrace._xla import at_construction, jit_unoptimised
from foretrace.structure._equations import FIXED_PLACES, LAYOUT, Equation, evaluate
from foretrace.structure._linear import LinearPart, Rule
from foretrace.structure._trace import Trace, read, variables


def generic_values(trace: Trace) -> dict:
    """Constants as they are; random numbers for known floats, zero where these always are.

    So a constant mask on a weight shows as zeros. Known values that are no floats, such as an index
    that comes with the input, are left out.
    """
    rng = np.random.default_rng(0)
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
                masks = _nonzeros(e, [place(v) for v in e.inputs])
                places.update(zip(e.outputs, masks, strict=True) if masks else ())
        values = {v: value(v) for v in floats if v not in constant} | constant
        names.extend(values)
        return list(values.values())

    with at_construction():  # or the first trace to ask would keep its own tracers here
        return dict(zip(names, find(), strict=True))


def generic_rule(linear_part: LinearPart, known: dict) -> Rule:
    """The rule of such a cell, whose known values are `known`.

    Every branch of a selection counts, since which one is taken may change from step to step; an
    equation whose non-zeros may move spreads everywhere.
    """
    # Positive numbers of one size: sums of them do not cancel, products do not vanish.
    trace, rng = linear_part.trace, np.random.default_rng(1)

    def rule(e, values):
        others = [v for v in variables(e.inputs) if not trace.is_tangent(v)]
        if all(v in known for v in others) and e.primitive.name in FIXED_PLACES:
            if e.primitive.name == "div":  # a denominator that is always zero says nothing of places
                below: Any = values[1]
                values = [values[0], jnp.where(below == 0, 1, below)]
            return linear_part.derivative(e, values)
        if e.primitive.name == "select_n":
            # Each entry is chosen on its own, so that none is like another for every choice.
            weighted = [
                a * rng.uniform(0.5, 1.5, a.shape).astype(a.dtype) for a in values[1:] if a is not None
            ]
            return [sum(weighted[1:], start=weighted[0]) if weighted else None]
        pairs = zip(e.inputs, values, strict=True)
        return _dense_random_map(rng, [a for v, a in pairs if trace.is_tangent(v) and a is not None], e)

    return rule


def _nonzeros(e: Equation, places: list) -> list | None:
    """Where the outputs of a known equation may differ from zero, from where its operands may.

    Places are ones and zeros; None where the equation tells nothing.
    """
    name, (out,) = e.primitive.name, e.outputs[:1]
    if name == "mul" or name in LAYOUT or name in ("slice", "split", "concatenate", "pad", "rev"):
        return evaluate(e, places)
    if name == "neg":
        return places
    if name in ("add", "add_any", "sub"):
        terms = [jnp.broadcast_to(a, out.aval.shape) != 0 for a in places]
        return [jnp.any(jnp.stack(terms), axis=0).astype(out.aval.dtype)]
    return None


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
