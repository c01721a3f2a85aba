"""From a cell to its `Structure`: traces it, finds its groups, checks them against `jax.jvp`."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from foretrace._checks import UserError, UserTypeError, check_kind, noted
from foretrace._types import Cell, Params
from foretrace._xla import at_construction, default_flags, jit_unoptimised
from foretrace.structure._groups import find_groups
from foretrace.structure._structure import Structure
from foretrace.structure._trace import Trace

_REMEMBERED = 64  # structures per process: of more cells than a comparison has; each is about 1 MB


class _Same:
    """A cell as a key: the same functions, whether or not these can be compared or hashed."""

    def __init__(self, cell: Cell):
        self.cell = cell  # kept, so that no other function gets the identity of one of its own

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.cell)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and all(a is b for a, b in zip(self.cell, other.cell, strict=True))


def structure_of(cell: Cell, params: Params | None = None) -> Structure:
    """Traces a cell and finds its Kronecker groups, once per cell and shapes of its parameters.

    Args:
        cell: the cell.
        params: its parameters, of which only shapes and dtypes are read; those of `cell.init` by default.

    Returns:
        The structure, checked against `jax.jvp` in a random direction. The same one whenever cell and
        shapes are the same.

    Raises:
        TypeError: parameters or hidden state are not floats, or not shaped like the cell's own.
        ValueError: the cell changes the shape of its state, or does not match its parameters.

    Example:
        >>> import foretrace as ft
        >>> structure = ft.structure_of(ft.cells.lstm(hidden=4, inputs=2))
        >>> structure.state_size
        8
        >>> [(group.factor_size, group.preact_size) for group in structure.groups]
        [(7, 16)]
    """
    check_kind("cell", cell, Cell, "take one of foretrace.cells, or wrap a step by foretrace.cell")
    if params is None:
        params = jax.eval_shape(cell.init, jax.random.key(0))
    leaves, treedef = jax.tree.flatten(params)
    shapes = tuple(jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
    # A program depends on these two settings at the time it is traced.
    settings = jnp.result_type(float), getattr(jax.config, "jax_default_matmul_precision", None)
    return _find(_Same(cell), treedef, shapes, settings)


@lru_cache(maxsize=_REMEMBERED)
@default_flags()
def _find(same: _Same, treedef: Any, leaves: tuple, settings: tuple) -> Structure:
    """`structure_of` for parameters of these shapes, under these settings of JAX."""
    del settings  # part of the key alone
    cell, shapes = same.cell, jax.tree.unflatten(treedef, leaves)
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
    # Leaf by leaf as lists, so that the trace's variables come in the order of the leaves.
    trace = Trace(step, [leaf for _, leaf in paths], state, x_leaves)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") or "params" for path, _ in paths]
    groups, dense, unused = find_groups(trace, names)
    structure = Structure(
        hidden=hidden,
        x=x,
        state_size=flat.size,
        dtype=at_least_float32(flat.dtype),
        treedef=treedef,
        leaves=tuple(leaf for _, leaf in paths),
        groups=groups,
        dense=dense,
        unused=unused,
        ravel=ravel,
        unravel=unravel,
        _trace=trace,
    )
    with at_construction():  # within a caller's trace nothing could be compared
        _verify(structure, cell)
    return structure


def _check_shapes(cell: Cell, params, hidden, x) -> None:
    check_floats("params", params)
    check_floats("hidden", hidden)
    if len({leaf.dtype for leaf in jax.tree.leaves(hidden)}) != 1:
        raise UserTypeError("hidden must have leaves of one dtype; convert them to one, such as float32.")
    expected = jax.eval_shape(cell.init, jax.random.key(0))
    if shapes_of(expected) != shapes_of(params):
        raise UserError(
            f"params must be shaped like cell.init(key), {shapes_of(expected)}; got {shapes_of(params)}; "
            "make them with cell.init or build the cell with the sizes of these parameters."
        )
    check_step(cell.step, params, hidden, x)


def check_step(step: Callable[..., Any], params: Any, hidden: Any, x: Any) -> None:
    """Raises UserError unless a step gives a hidden state like the one it gets; arguments are shapes.

    What the step itself raises passes, since it may be a mistake in its code.
    """
    given = f"params {shapes_of(params)}, hidden {shapes_of(hidden)} and input {shapes_of(x)}"
    with noted(f"Raised by the cell's step, for {given}."):
        new = jax.eval_shape(step, params, hidden, x)
    if shapes_of(new) != shapes_of(hidden):
        raise UserError(
            f"step must return a hidden state like the one it gets, {shapes_of(hidden)}; got "
            f"{shapes_of(new)}; keep its structure, shapes and dtypes the same at every step."
        )


def check_floats(name: str, tree: Any) -> None:
    """Raises TypeError unless all leaves are float arrays."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            remedy = (
                "give a new key with every input, as a part of x" if is_key else "convert it to float32"
            )
            where = name + jax.tree_util.keystr(path)
            raise UserTypeError(f"{where} must be a float array; got {leaf.dtype}; {remedy}.")


def first_line(error: Exception) -> str:
    """The first line of an exception's message."""
    return str(error).strip().splitlines()[0]


def at_least_float32(dtype: Any) -> Any:
    """The dtype for sums over many steps and for decompositions, beside numbers of this dtype."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype("float32")


def shapes_of(tree) -> str:
    """Paths, dtypes and shapes of a pytree's leaves, for messages."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    parts = [
        f"{jax.tree_util.keystr(path)} {leaf.dtype}{list(leaf.shape)}".strip() for path, leaf in leaves
    ]
    return ", ".join(parts) or "nothing"


def _verify(structure: Structure, cell: Cell) -> None:
    """Raises RuntimeError unless the structure gives `jax.jvp` in a random direction."""
    rng = np.random.default_rng(0)  # draws here need no program to be compiled

    def noise(a, scale=1.0):
        return np.asarray(scale * rng.standard_normal(a.shape), a.dtype)

    def near(a, scale=1.0):
        return np.asarray(a) + noise(a, scale) if jnp.issubdtype(a.dtype, jnp.floating) else a

    def points():
        """Points at some distance of the origin; near the cell's own values; there, the safest of all."""
        hidden, x = structure.ravel(cell.initial_hidden()), cell.example_input()
        away = [noise(leaf, 1 / max((1, *leaf.shape[:1])) ** 0.5) for leaf in structure.leaves]
        yield jax.tree.unflatten(structure.treedef, away), near(hidden), jax.tree.map(near, x)
        params = jit_unoptimised(cell.init)(jax.random.key(0))
        beside = jax.tree.map(lambda a: near(a, 0.1), params), near(hidden, 0.5)
        yield *beside, jax.tree.map(near, x)
        positive = lambda a: jnp.abs(near(a)) if jnp.issubdtype(a.dtype, jnp.number) else a  # noqa: E731
        yield *beside, jax.tree.map(positive, x)
        yield params, hidden, x

    @jit_unoptimised
    def compare(params, hidden, x, tangents):
        """Norms of the differences of value and tangent, and of these themselves."""
        step = lambda p, h: structure.ravel(cell.step(p, structure.unravel(h), x))  # noqa: E731
        expected = jax.jvp(step, (params, hidden), tangents)
        new, residuals = structure.forward(params, hidden, x)
        leaves = jax.tree.leaves(tangents[0])
        rows = zip(structure.factors(residuals), structure.matrices(tangents[0]), strict=True)
        tangent = structure.pushforward(
            params,
            residuals,
            tangents[1],
            [f @ w.astype(f.dtype) for f, w in rows],
            [leaves[d.leaf] for d in structure.dense],
        )
        got, expected = jax.tree.map(lambda a: a.astype(structure.dtype), ((new, tangent), expected))
        errors = [jnp.linalg.norm(a - b) for a, b in zip(got, expected, strict=True)]
        return jnp.stack(errors), jnp.stack([1 + jnp.linalg.norm(b) for b in expected])

    # One random direction meets every wrong entry, but for a set of measure zero.
    directions = jax.tree.unflatten(structure.treedef, [noise(leaf) for leaf in structure.leaves])
    tangents = directions, noise(structure.ravel(cell.initial_hidden()))
    for point in points():  # a step may be undefined at some: the first finite one decides
        error, size = (np.asarray(a) for a in compare(*point, tangents))
        if np.isfinite(size).all():
            break
    else:
        raise UserError(
            "cell.example_input() must be an input at which the step and its derivative are finite; got "
            "infinities or NaN there and near it; give one from your data."
        )
    # A wrong factorisation errs by the size of the derivative itself, rounding by eps times a few.
    rounding = structure.rounding
    if jax.default_backend() != "cpu":  # products of float32 are rounded to TF32 or bfloat16 there
        rounding = max(rounding, float(jnp.finfo(jnp.bfloat16).eps))
    if not (error <= rounding**0.5 * size).all():
        raise RuntimeError(
            "the Kronecker structure found for this cell does not give its derivative; "
            "this is a fault of foretrace: please report the cell, and use uoro or tbptt until then."
        )
