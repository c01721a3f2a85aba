"""Which parameters factorise: the Kronecker structure of a cell, read off its traced derivative.

`jax.jvp` of a cell is traced once, and its program is cut in two: the known part runs forward and leaves
*residuals* (what the linear part reads and depends on the hidden state or the input), the linear part maps
tangents to the tangent of the new hidden state. A leaf of the parameters *factorises* if its tangent enters
the linear part through one product with a known vector f (a bias: through one sum, f = 1). Leaves that are
then summed into one z form a *group*, for which

    immediate_jacobian = input_factor (x) preact_jacobian,    preact_jacobian = d hidden' / d z.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from foretrace._jaxpr import DenseLeaf, Group, Member, Trace
from foretrace._program import Program
from foretrace._types import Cell, Hidden, Input, Params


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
    trace = Trace(step, [leaf for _, leaf in paths], state, x_leaves)
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
        x=x,
        state_size=flat.size,
        dtype=flat.dtype,
        treedef=treedef,
        leaves=tuple(leaf for _, leaf in paths),
        groups=groups,
        dense=tuple(dense),
        unused=tuple(unused),
        ravel=ravel,
        unravel=unravel,
        _program=Program(trace, groups, dense),
    )
    with jax.ensure_compile_time_eval():
        return dataclasses.replace(structure, point=_verify(structure, cell))


def _check_shapes(cell: Cell, params, hidden, x) -> None:
    for name, tree in (("params", params), ("hidden", hidden)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                where = name + jax.tree_util.keystr(path)
                raise TypeError(f"{where} must be a float array; got {leaf.dtype}; convert it to float32.")
    if len({leaf.dtype for leaf in jax.tree.leaves(hidden)}) != 1:
        raise TypeError("hidden must have leaves of one dtype; convert them to one, such as float32.")
    expected = jax.eval_shape(cell.init, jax.random.key(0))
    if shapes_of(expected) != shapes_of(params):
        raise ValueError(
            f"params must be shaped like cell.init(key), {shapes_of(expected)}; got {shapes_of(params)}; "
            "make them with cell.init or build the cell with the sizes of these parameters."
        )
    try:
        new = jax.eval_shape(cell.step, params, hidden, x)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"cell.step must accept params {shapes_of(params)}, hidden {shapes_of(hidden)} and input "
            f"{shapes_of(x)}; it failed with: {str(error).splitlines()[0]}; make their sizes agree."
        ) from error
    if shapes_of(new) != shapes_of(hidden):
        raise ValueError(
            f"cell.step must return a hidden state like the one it gets, {shapes_of(hidden)}; got "
            f"{shapes_of(new)}; keep its structure, shapes and dtypes the same at every step."
        )


def shapes_of(tree) -> str:
    """Paths, dtypes and shapes of a pytree's leaves, for messages."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    parts = [
        f"{jax.tree_util.keystr(path)} {leaf.dtype}{list(leaf.shape)}".strip() for path, leaf in leaves
    ]
    return ", ".join(parts) or "nothing"


def _verify(structure: Structure, cell: Cell) -> tuple[Params, Any, Input]:
    """Raises RuntimeError unless the structure gives `jax.jvp` in a random direction; says where it did."""
    rng = np.random.default_rng(0)  # draws here need no program to be compiled

    def noise(a, scale=1.0):
        return np.asarray(scale * rng.standard_normal(a.shape), a.dtype)

    def near(a, scale=1.0):
        a = np.asarray(a)
        return a + noise(a, scale) if jnp.issubdtype(a.dtype, jnp.floating) else a

    def points():
        """Some way off the origin; near the cell's own values; there, for a step undefined elsewhere."""
        hidden, x = structure.ravel(cell.initial_hidden()), cell.example_input()
        away = [noise(leaf, 1 / max((1, *leaf.shape[:1])) ** 0.5) for leaf in structure.leaves]
        yield jax.tree.unflatten(structure.treedef, away), near(hidden), jax.tree.map(near, x)
        params = jax.jit(cell.init)(jax.random.key(0))
        beside = jax.tree.map(lambda a: near(a, 0.1), params), near(hidden, 0.5)
        yield *beside, jax.tree.map(near, x)
        yield *beside, jax.tree.map(lambda a: np.abs(near(a)), x)
        yield params, hidden, x

    @jax.jit
    def compare(params, hidden, x, tangents):
        """Norms of what is wrong, and what they are small against."""
        step = lambda p, h: structure.ravel(cell.step(p, structure.unravel(h), x))  # noqa: E731
        expected = jax.jvp(step, (params, hidden), tangents)
        new, residuals = structure.forward(params, hidden, x)
        leaves = jax.tree.leaves(tangents[0])
        rows = zip(structure.factors(residuals), structure.matrices(tangents[0]), strict=True)
        got = structure.pushforward(
            params,
            residuals,
            tangents[1],
            [f @ w.astype(f.dtype) for f, w in rows],
            [leaves[d.leaf] for d in structure.dense],
        )
        wrong = [jnp.linalg.norm(a - b) for a, b in zip((new, got), expected, strict=True)]
        return jnp.stack(wrong), jnp.stack([1 + jnp.linalg.norm(b) for b in expected])

    directions = jax.tree.unflatten(structure.treedef, [noise(leaf) for leaf in structure.leaves])
    tangents = directions, noise(jax.ShapeDtypeStruct((structure.state_size,), structure.dtype))
    for point in points():
        wrong, size = (np.asarray(a) for a in compare(*point, tangents))
        if np.isfinite(size).all():
            break
    else:
        raise ValueError(
            "cell.example_input() must be an input at which the step and its derivative are finite; got "
            "infinities or NaN there and near it; give one from your data."
        )
    if not (wrong <= jnp.finfo(structure.dtype).eps ** 0.5 * size).all():
        raise RuntimeError(
            "the Kronecker structure found for this cell does not give its derivative; "
            "this is a fault of foretrace: please report the cell, and use uoro or tbptt until then."
        )
    return point
