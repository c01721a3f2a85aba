"""Where the parameters enter a traced step: which leaves factorise, and which are summed into one z.

A tangent is followed from its leaf forwards: through what only moves entries, one product or sum, then the
sums that end in the pre-activation z.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from foretrace.structure._equations import LAYOUT, SUMS, Equation, evaluate, keeps_size
from foretrace.structure._trace import Trace


class Member(NamedTuple):
    """One leaf of a group: its rows of the group's (F, Z) matrix.

    Attributes:
        leaf: position among the leaves of the parameters.
        path: the leaf's name, such as `['recurrent']`.
        factor: the variable that multiplies it, or None where that is 1 (a bias).
        origin: of the factor: "hidden", "input", "computed" or "1".
        rows: how many rows of the matrix are this leaf's.
        sign: -1 where the product is subtracted.
        matrix: leaf -> (rows, Z), a permutation of its entries.
        recurrent_use: the linear equation that multiplies the leaf by the tangent of its factor, or None
            where the factor has none.
    """

    leaf: int
    path: str
    factor: Any
    origin: str
    rows: int
    sign: int
    matrix: Callable[[Any], Any]
    recurrent_use: Equation | None


class Group(NamedTuple):
    """Leaves summed into one pre-activation z: F = `factor_size` rows, Z = `preact_size` columns."""

    members: tuple[Member, ...]
    preact: Any
    factor_size: int
    preact_size: int


class DenseLeaf(NamedTuple):
    """A leaf that does not factorise, and why."""

    leaf: int
    path: str
    size: int
    reason: str


def find_groups(
    trace: Trace, names: list[str]
) -> tuple[tuple[Group, ...], tuple[DenseLeaf, ...], tuple[str, ...]]:
    """The groups, the leaves that do not factorise, and the names of those that the step does not read."""
    # Leaves that end in the same z share its Jacobian: they are one group, whatever module they come from.
    by_preact: dict[Any, list[Member]] = {}
    dense, unused = [], []
    leaves: list[Any] = trace.params
    for i, (name, leaf) in enumerate(zip(names, leaves, strict=True)):
        match _locate(trace, i, name):
            case "unused":
                unused.append(name)
            case str(reason):
                dense.append(DenseLeaf(i, name, leaf.aval.size, reason))
            case z, member:
                by_preact.setdefault(z, []).append(member)
    groups = tuple(
        Group(tuple(members), z, sum(m.rows for m in members), z.aval.size)
        for z, members in by_preact.items()
    )
    return groups, tuple(dense), tuple(unused)


def _locate(trace: Trace, leaf: int, path: str) -> tuple[Any, Member] | str:
    """(z, member) of a leaf that factorises, or the reason why it does not."""
    v: Any = trace.param_tangents[leaf]
    # From the leaf forwards: layout, one product or sum, then the sums that end in z.
    layout: list[Equation] = []
    while (e := trace.only_use(v)) and e.primitive.name in LAYOUT and keeps_size(e):
        layout.append(e)
        (v,) = e.outputs
    if v not in trace.uses:
        return "unused"
    if e is None:
        return f"it is used {len(trace.uses[v])} times"
    factor, axes, use = None, None, None
    if e.primitive.name == "dot_general":
        contract, batch = e.params["dimension_numbers"]
        side = e.inputs.index(v)
        factor = e.inputs[1 - side]
        if trace.is_tangent(factor) or any(batch[0]):
            return "it is multiplied by something that is not one known vector"
        # All of the factor is contracted, so that it acts as a vector whatever its shape.
        if math.prod(factor.aval.shape[i] for i in contract[1 - side]) != factor.aval.size:
            return "it is multiplied by a matrix, not by a vector"
        pairs = sorted(zip(contract[1 - side], contract[side], strict=True))
        axes = [i for _, i in pairs]
        axes += [i for i in range(v.aval.ndim) if i not in axes]
        rows = factor.aval.size
        z = e.outputs[0]
        use = _recurrent_use(trace, leaf, e, side)
    elif e.primitive.name in SUMS and keeps_size(e):
        rows, z = 1, v
    else:
        return f"it enters through '{e.primitive.name}', not through a product with a vector"
    z, sign = _sum_of(trace, z)

    def matrix(w):
        for step in layout:
            (w,) = evaluate(step, [w])
        w = w if axes is None else w.transpose(axes)
        return w.reshape(rows, -1)

    return z, Member(leaf, path, factor, _origin(trace, factor), rows, sign, matrix, use)


def _sum_of(trace: Trace, v) -> tuple[Any, int]:
    """The last of the single-use sums that v enters, and the sign with which it does."""
    sign = 1
    while (e := trace.only_use(v)) and e.primitive.name in SUMS and keeps_size(e):
        if e.primitive.name == "neg" or (e.primitive.name == "sub" and e.inputs[1] is v):
            sign = -sign
        (v,) = e.outputs
    return v, sign


def _source(trace: Trace, v, through):
    """The variable that v is a form of, through equations of these names."""
    while v in trace.producers and trace.producers[v].primitive.name in through:
        v = trace.producers[v].inputs[0]
    return v


def _origin(trace: Trace, factor) -> str:
    v = _source(trace, factor, (*LAYOUT, "slice", "split"))
    return {None: "1", trace.hidden: "hidden"}.get(v, "input" if v in trace.x else "computed")


def _recurrent_use(trace: Trace, leaf: int, product: Equation, side: int) -> Equation | None:
    """The product of the leaf itself with its factor's tangent: the other half of the product rule."""
    for e in trace.linear:
        if e.primitive.name == "dot_general" and e.params == product.params and e is not product:
            weight = _source(trace, e.inputs[side], LAYOUT)
            if weight is trace.params[leaf] and _sum_of(trace, e.outputs[0]) == _sum_of(
                trace, product.outputs[0]
            ):
                return e
    return None
