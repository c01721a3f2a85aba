"""Which parameters factorise: the Kronecker structure of a cell, read off its traced derivative.

The only file that reads jaxprs. `jax.jvp` of a cell is traced once, and its program is cut in two: the
known part runs forward and leaves *residuals* (what the linear part reads and depends on the hidden
state or the input), the linear part maps tangents to the tangent of the new hidden state. A leaf of the
parameters *factorises* if its tangent enters the linear part through one product with a known vector f
(a bias: through one sum, f = 1). Leaves that are then summed into one z form a *group*, for which

    immediate_jacobian = input_factor (x) preact_jacobian,    preact_jacobian = d hidden' / d z.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core as jex
from jax.flatten_util import ravel_pytree

from foretrace._types import Cell, Hidden, Input, Params

_CALLS = {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2"}
_LAYOUT = {"transpose", "reshape", "squeeze", "convert_element_type", "broadcast_in_dim", "copy"}
_SUMS = {"add", "add_any", "sub", "neg", "reshape", "squeeze", "broadcast_in_dim"}


class Equation(NamedTuple):
    primitive: Any
    params: dict
    inputs: tuple
    outputs: tuple


class Member(NamedTuple):
    """One leaf of a group: its rows of the group's (F, Z) matrix.

    Attributes:
        leaf: position among the leaves of the parameters.
        path: the leaf's name, such as `['recurrent']`.
        factor: the variable that multiplies it, or None where that is 1 (a bias).
        origin: what the factor is: "hidden", "input", "computed" or "1".
        rows: how many rows of the matrix are this leaf's.
        sign: -1 where the product is subtracted.
        matrix: leaf -> (rows, Z), a permutation of its entries.
    """

    leaf: int
    path: str
    factor: Any
    origin: str
    rows: int
    sign: int
    matrix: Callable[[Any], Any]


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


@dataclass(frozen=True, eq=False)
class Structure:
    """A cell's traced step: its groups, and the forward, tangent and cotangent maps of one example.

    Hidden states, tangents and credits are flat, (S,) with S = `state_size`.
    """

    hidden: Any
    state_size: int
    dtype: Any
    treedef: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    groups: tuple[Group, ...]
    dense: tuple[DenseLeaf, ...]
    unused: tuple[str, ...]
    ravel: Callable[[Hidden], jax.Array]
    unravel: Callable[[jax.Array], Hidden]
    _program: "_Program"

    def forward(self, params: Params, hidden: jax.Array, x: Input) -> tuple[jax.Array, tuple]:
        """(params, hidden (S,), x) -> (hidden' (S,), residuals)."""
        return self._program.forward(jax.tree.leaves(params), hidden, jax.tree.leaves(x))

    @property
    def residual_shapes(self) -> tuple:
        """What one step of one lane leaves in the window: objects with a shape and a dtype."""
        return tuple(v.aval for v in self._program.residuals)

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
    ) -> jax.Array:
        """Tangent of hidden' from those of hidden (S,), of every z (Z,) and of every dense leaf."""
        out = self._program.tangent(
            jax.tree.leaves(params),
            residuals,
            tangent,
            preacts or [None] * len(self.groups),
            dense or [None] * len(self.dense),
        )
        return jnp.zeros(self.state_size, self.dtype) if out is None else out

    def pullback(
        self, params: Params, residuals: tuple, credit: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        """credit (S,) at hidden' -> credits at hidden (S,), at every z (Z,) and every dense leaf."""
        zeros = (
            jnp.zeros(self.state_size, self.dtype),
            tuple(jnp.zeros(group.preact_size, self.dtype) for group in self.groups),
            tuple(jnp.zeros(self.leaves[d.leaf].shape, self.leaves[d.leaf].dtype) for d in self.dense),
        )
        _, transpose = jax.vjp(lambda t, z, w: self.pushforward(params, residuals, t, z, w), *zeros)
        return transpose(credit)

    def gradient(self, matrices: Sequence[jax.Array], dense: Sequence[jax.Array]) -> Params:
        """Params-shaped gradient from one (F, Z) matrix per group and one array per dense leaf."""
        out: list = [jnp.zeros(leaf.shape, leaf.dtype) for leaf in self.leaves]
        for group, matrix in zip(self.groups, matrices, strict=True):
            start = 0
            for member in group.members:
                rows = matrix[start : start + member.rows]
                start += member.rows
                transpose = jax.linear_transpose(member.matrix, self.leaves[member.leaf])
                (out[member.leaf],) = transpose(rows)
        for leaf, value in zip(self.dense, dense, strict=True):
            out[leaf.leaf] = value
        return jax.tree.unflatten(self.treedef, out)

    def matrices(self, params: Params) -> tuple[jax.Array, ...]:
        """The leaves of every group as one (F, Z) matrix, the inverse of `gradient`."""
        leaves = jax.tree.leaves(params)
        return tuple(
            jnp.concatenate([member.matrix(leaves[member.leaf]) for member in group.members])
            for group in self.groups
        )


class _Program:
    """The traced jvp, cut into a known and a linear part."""

    def __init__(self, trace: "_Trace", groups: Sequence[Group], dense: Sequence[DenseLeaf]):
        self._trace = trace
        self._preacts = {group.preact: i for i, group in enumerate(groups)}
        self._dense = [trace.param_tangents[leaf.leaf] for leaf in dense]
        stepwise = {trace.hidden, *trace.x}
        for e in trace.known:
            if not stepwise.isdisjoint(_variables(e.inputs)):
                stepwise.update(e.outputs)
        # What depends on the parameters alone is recomputed, not stored: it is the same for all lanes.
        self._fixed = [e for e in trace.known if stepwise.isdisjoint(e.outputs)]
        reads = [v for e in trace.linear for v in _variables(e.inputs) if v in stepwise]
        factors = [m.factor for group in groups for m in group.members if m.factor is not None]
        self.residuals = tuple(dict.fromkeys(factors + reads))

    def forward(self, params: list, hidden: jax.Array, x: list) -> tuple[jax.Array, tuple]:
        trace = self._trace
        env = trace.consts | dict(zip(trace.params, params, strict=True))
        env |= dict(zip(trace.x, x, strict=True)) | {trace.hidden: hidden}
        for e in trace.known:
            env.update(zip(e.outputs, _evaluate(e, [_read(env, v) for v in e.inputs]), strict=True))
        return _read(env, trace.output), tuple(env[v] for v in self.residuals)

    def tangent(self, params: list, residuals: tuple, hidden, preacts, dense) -> jax.Array | None:
        trace = self._trace
        env = trace.consts | dict(zip(trace.params, params, strict=True))
        for e in self._fixed:
            env.update(zip(e.outputs, _evaluate(e, [_read(env, v) for v in e.inputs]), strict=True))
        env |= dict(zip(self.residuals, residuals, strict=True))
        env[trace.hidden_tangent] = hidden  # a tangent that is zero is written None
        env.update(zip(self._dense, dense, strict=True))
        for e in trace.linear:
            outputs = self._linear_step(e, [self._operand(env, v) for v in e.inputs])
            for v, value in zip(e.outputs, outputs, strict=True):
                shift = preacts[self._preacts[v]] if v in self._preacts else None
                if shift is not None:
                    shift = shift.reshape(v.aval.shape).astype(v.aval.dtype)
                    value = shift if value is None else value + shift
                env[v] = value
        return self._operand(env, trace.tangent_output)

    def _operand(self, env, v):
        return env.get(v) if self._trace.is_tangent(v) else _read(env, v)

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
        return _evaluate(e, filled)


class _Trace:
    """The equations of `jax.jvp` of a cell's step in (params, hidden), inlined and without dead code."""

    def __init__(self, function: Callable, params: list, hidden: Any, x: list):
        def jvp(params, hidden, x, param_tangents, hidden_tangent):
            step = lambda p, h: function(p, h, x)  # noqa: E731
            return jax.jvp(step, (params, hidden), (param_tangents, hidden_tangent))

        closed = jax.make_jaxpr(jvp)(params, hidden, x, params, hidden)
        self.consts = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
        if any(isinstance(value, jax.core.Tracer) for value in closed.consts):
            raise TypeError(
                "cell.step must not close over a traced value; pass it as a parameter or as an input."
            )
        inputs = iter(closed.jaxpr.invars)
        self.params = [next(inputs) for _ in params]
        self.hidden = next(inputs)
        self.x = [next(inputs) for _ in x]
        self.param_tangents = [next(inputs) for _ in params]
        self.hidden_tangent = next(inputs)

        equations: list[Equation] = []
        self.output, self.tangent_output = self._inline(closed.jaxpr, {}, equations)
        live = set(_variables([self.output, self.tangent_output]))
        kept = []
        for e in reversed(equations):
            if not live.isdisjoint(e.outputs):
                kept.append(e)
                live.update(_variables(e.inputs))
        self.tangents = {*self.param_tangents, self.hidden_tangent}
        self.known, self.linear = [], []
        for e in reversed(kept):
            linear = not self.tangents.isdisjoint(_variables(e.inputs))
            (self.linear if linear else self.known).append(e)
            if linear:
                self.tangents.update(e.outputs)
        self.uses: dict[Any, list[Equation | None]] = {}
        for e in self.linear:
            for v in _variables(e.inputs):
                self.uses.setdefault(v, []).append(e)
        self.uses.setdefault(self.tangent_output, []).append(None)

    def _inline(self, jaxpr, outer: dict, equations: list[Equation]) -> list:
        def rename(v):
            return v if isinstance(v, jex.Literal) else outer.get(v, v)

        for e in jaxpr.eqns:
            inputs = tuple(rename(v) for v in e.invars)
            if e.primitive.name not in _CALLS:
                # A jaxpr may be called twice, so its variables need names of their own at each call.
                fresh = tuple(jex.Var(v.aval) for v in e.outvars)
                equations.append(Equation(e.primitive, e.params, inputs, fresh))
                outer.update(zip(e.outvars, fresh, strict=True))
                continue
            inner = e.params.get("jaxpr", e.params.get("call_jaxpr"))
            if isinstance(inner, jex.ClosedJaxpr):
                self.consts.update(zip(inner.jaxpr.constvars, inner.consts, strict=True))
                inner = inner.jaxpr
            outputs = self._inline(inner, dict(zip(inner.invars, inputs, strict=True)), equations)
            outer.update(zip(e.outvars, outputs, strict=True))
        return [rename(v) for v in jaxpr.outvars]

    def is_tangent(self, v) -> bool:
        return isinstance(v, jex.Var) and v in self.tangents

    def only_use(self, v) -> Equation | None:
        """The one linear equation that reads v, or None where there is none or more than one."""
        uses = self.uses.get(v, [])
        return uses[0] if len(uses) == 1 else None

    def _origin(self, v) -> str:
        made = {out: e for e in self.known for out in e.outputs}
        while v in made and made[v].primitive.name in (*_LAYOUT, "slice", "split"):
            v = made[v].inputs[0]
        return {None: "1", self.hidden: "hidden"}.get(v, "input" if v in self.x else "computed")

    def locate(self, leaf: int, path: str) -> tuple[Any, Member] | str:
        """(z, member) of a leaf that factorises, or the reason why it does not."""
        v, layout = self.param_tangents[leaf], []
        while (e := self.only_use(v)) and e.primitive.name in _LAYOUT and _same_size(e):
            layout.append(e)
            (v,) = e.outputs
        if v not in self.uses:
            return "unused"
        if e is None:
            return f"it is used {len(self.uses[v])} times"
        factor, axes = None, None
        if e.primitive.name == "dot_general":
            contract, batch = e.params["dimension_numbers"]
            side = e.inputs.index(v)
            factor = e.inputs[1 - side]
            if self.is_tangent(factor) or any(batch[0]):
                return "it is multiplied by something that is not one known vector"
            if math.prod(factor.aval.shape[i] for i in contract[1 - side]) != factor.aval.size:
                return "it is multiplied by a matrix, not by a vector"
            pairs = sorted(zip(contract[1 - side], contract[side], strict=True))
            axes = [i for _, i in pairs]
            axes += [i for i in range(v.aval.ndim) if i not in axes]
            rows = factor.aval.size
            z = e.outputs[0]
        elif e.primitive.name in _SUMS and _same_size(e):
            rows, z = 1, v
        else:
            return f"it enters through '{e.primitive.name}', not through a product with a vector"
        sign = 1
        while (e := self.only_use(z)) and e.primitive.name in _SUMS and _same_size(e):
            if e.primitive.name == "neg" or (e.primitive.name == "sub" and e.inputs[1] is z):
                sign = -sign
            (z,) = e.outputs

        def matrix(w):
            for step in layout:
                (w,) = _evaluate(step, [w])
            w = w if axes is None else w.transpose(axes)
            return w.reshape(rows, -1)

        return z, Member(leaf, path, factor, self._origin(factor), rows, sign, matrix)


def _same_size(e: Equation) -> bool:
    return all(v.aval.size == e.outputs[0].aval.size for v in e.inputs)


def _variables(operands) -> list:
    return [v for v in operands if isinstance(v, jex.Var)]


def _read(env: dict, v):
    return v.val if isinstance(v, jex.Literal) else env[v]


def _evaluate(e: Equation, values: list) -> list:
    out = e.primitive.bind(*values, **e.primitive.get_bind_params(e.params))
    return list(out) if e.primitive.multiple_results else [out]


def _factor(member: Member, known: dict, dtype) -> jax.Array:
    one = jnp.ones(1, dtype) if member.factor is None else known[member.factor].ravel()
    return member.sign * one.astype(dtype)


def find_structure(cell: Cell, params: Params) -> Structure:
    """Traces a cell and finds its Kronecker groups.

    Args:
        cell: the cell.
        params: its parameters; only shapes and dtypes are read.

    Returns:
        The structure, checked against `jax.jvp` in a random direction.

    Raises:
        TypeError: parameters or hidden state are not floats, or not shaped like the cell's own.
        ValueError: the cell changes the shape of its state, or does not match its parameters.
    """
    shapes = jax.eval_shape(lambda tree: tree, params)
    hidden, x = jax.eval_shape(cell.initial_hidden), jax.eval_shape(cell.example_input)
    _check_shapes(cell, shapes, hidden, x)
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), hidden)
    flat, unravel = ravel_pytree(zeros)
    ravel = lambda tree: ravel_pytree(tree)[0]  # noqa: E731
    paths, treedef = jax.tree_util.tree_flatten_with_path(shapes)
    x_leaves, x_treedef = jax.tree.flatten(x)

    def step(params, hidden, x):
        params, x = jax.tree.unflatten(treedef, params), jax.tree.unflatten(x_treedef, x)
        return ravel(cell.step(params, unravel(hidden), x))

    state = jax.ShapeDtypeStruct(flat.shape, flat.dtype)
    trace = _Trace(step, [leaf for _, leaf in paths], state, x_leaves)
    found: dict[Any, list[Member]] = {}
    dense, unused = [], []
    for i, (path, leaf) in enumerate(paths):
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "params"
        match trace.locate(i, name):
            case "unused":
                unused.append(name)
            case str(reason):
                dense.append(DenseLeaf(i, name, math.prod(leaf.shape), reason))
            case z, member:
                found.setdefault(z, []).append(member)
    groups = tuple(
        Group(tuple(members), z, sum(m.rows for m in members), z.aval.size) for z, members in found.items()
    )
    structure = Structure(
        hidden=hidden,
        state_size=flat.size,
        dtype=flat.dtype,
        treedef=treedef,
        leaves=tuple(leaf for _, leaf in paths),
        groups=groups,
        dense=tuple(dense),
        unused=tuple(unused),
        ravel=ravel,
        unravel=unravel,
        _program=_Program(trace, groups, dense),
    )
    with jax.ensure_compile_time_eval():
        _verify(structure, cell)
    return structure


def _check_shapes(cell: Cell, params, hidden, x) -> None:
    for name, tree in (("params", params), ("hidden", hidden)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                where = name + jax.tree_util.keystr(path)
                raise TypeError(f"{where} must be a float array; got {leaf.dtype}; convert it to float32.")
    if len({leaf.dtype for leaf in jax.tree.leaves(hidden)}) != 1:
        raise TypeError("hidden must have leaves of one dtype; convert them to one, such as float32.")
    expected = jax.eval_shape(cell.init, jax.random.key(0))
    if _describe(expected) != _describe(params):
        raise ValueError(
            f"params must be shaped like cell.init(key), {_describe(expected)}; got {_describe(params)}; "
            "make them with cell.init or build the cell with the sizes of these parameters."
        )
    try:
        new = jax.eval_shape(cell.step, params, hidden, x)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"cell.step must accept params {_describe(params)}, hidden {_describe(hidden)} and input "
            f"{_describe(x)}; it failed with: {str(error).splitlines()[0]}; make their sizes agree."
        ) from error
    if _describe(new) != _describe(hidden):
        raise ValueError(
            f"cell.step must return a hidden state like the one it gets, {_describe(hidden)}; got "
            f"{_describe(new)}; keep its structure, shapes and dtypes the same at every step."
        )


def _describe(tree) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    parts = [f"{jax.tree_util.keystr(path)} {leaf.dtype}{list(leaf.shape)}".strip() for path, leaf in leaves]
    return ", ".join(parts) or "nothing"


def _verify(structure: Structure, cell: Cell) -> None:
    """Raises RuntimeError unless the structure gives `jax.jvp` in a random direction."""
    keys = iter(jax.random.split(jax.random.key(0), 8))

    def noise(tree, scale):
        leaves, treedef = jax.tree.flatten(tree)
        key = next(keys)
        draws = [
            leaf + scale * jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
            if jnp.issubdtype(leaf.dtype, jnp.floating)
            else leaf
            for i, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(treedef, draws)

    params = noise(cell.init(next(keys)), 0.1)
    hidden, x = noise(cell.initial_hidden(), 0.5), noise(cell.example_input(), 1.0)
    zero = jax.tree.map(jnp.zeros_like, (params, hidden))
    tangents = noise(zero, 1.0)
    expected = jax.jvp(lambda p, h: structure.ravel(cell.step(p, h, x)), (params, hidden), tangents)
    new, residuals = structure.forward(params, structure.ravel(hidden), x)
    factors = structure.factors(residuals)
    leaves = jax.tree.leaves(tangents[0])
    got = structure.pushforward(
        params,
        residuals,
        structure.ravel(tangents[1]),
        [f @ w for f, w in zip(factors, structure.matrices(tangents[0]), strict=True)],
        [leaves[d.leaf] for d in structure.dense],
    )
    for a, b in zip((new, got), expected, strict=True):
        scale = jnp.finfo(a.dtype).eps ** 0.5 * (1 + jnp.linalg.norm(b))
        if bool(jnp.linalg.norm(a - b) > scale):
            raise RuntimeError(
                "the Kronecker structure found for this cell does not give its derivative; "
                "this is a fault of foretrace: please report the cell, and use uoro or tbptt until then."
            )
