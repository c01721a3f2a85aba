"""Lanes, streams side by side: with or without a lanes axis, and in groups one after the other."""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from foretrace._checks import UserError, UserTypeError, check_positive_int
from foretrace._types import Cell, Hidden, Input, Params
from foretrace._xla import is_spread
from foretrace.structure._find import shapes_of
from foretrace.structure._structure import Structure

# Bytes of pasts per core that a push may touch at a time: about a core's own cache. With more of them the
# new products of 16 lanes go through memory: a sixth of a step (`foretrace bench highway-128`, ok:16/32).
_CACHE = 2**21


class Lanes:
    """A cell stepped on several streams; a single one has no lanes axis outside, one of length 1 inside."""

    def __init__(self, cell: Cell, structure: Structure) -> None:
        self._cell, self._structure = cell, structure

    def first(self, key: jax.Array, params: Params, lanes: Any) -> tuple[Hidden, int, jax.Array]:
        """The hidden state that streams start from, the number of lanes (one stream: 1), and the key.

        Raises:
            TypeError, ValueError: `lanes` is not an int >= 1, or `params` are not shaped like the cell's.
        """
        self.check_params(params)
        # Copies, because a training loop may give away the memory of a state.
        hidden, key = jax.tree.map(jnp.copy, (self._cell.initial_hidden(), key))
        if lanes is None:
            return hidden, 1, key
        count = check_positive_int("lanes", lanes, "for a single stream leave it out")
        return repeat(hidden, count), count, key

    def forward(self, params: Params, state: Any, x: Input) -> tuple[Hidden, tuple[jax.Array, ...]]:
        """The next hidden state, like `state.hidden`, and the residuals of the step, leaves (lanes, ..).

        Raises:
            ValueError: `x` is not shaped like the cell's example, with a leading axis if there are lanes.
        """
        structure = self._structure
        self.check_params(params)
        axes, got = self._axes(state), shapes_of(jax.eval_shape(lambda x: x, x))
        each = jax.tree.map(lambda a: jax.ShapeDtypeStruct(axes + a.shape, a.dtype), structure.x)
        if got != shapes_of(each):
            lanes = f", with a leading axis of {axes[0]} lanes" if axes else ""
            raise UserError(
                f"x must be {shapes_of(each)}, like cell.example_input(){lanes}; got {got}; convert it or "
                "build the cell for it."
            )
        hidden, x = self.as_lanes(state, (state.hidden, x))
        flat = jax.vmap(structure.ravel)(hidden)
        flat, residuals = jax.vmap(structure.forward, in_axes=(None, 0, 0))(params, flat, x)
        return self.like_hidden(state, jax.vmap(structure.unravel)(flat)), residuals

    def begin(self, state: Any, restart: Any) -> tuple[Hidden, jax.Array]:
        """The hidden state with the lanes that restart at the cell's initial one, and which do, (lanes,).

        Raises:
            TypeError, ValueError: `restart` is not bool, or not one for each lane.
        """
        restart, axes = jnp.asarray(restart), self._axes(state)
        if restart.dtype != bool:
            raise UserTypeError(f"restart must be a bool array; got {restart.dtype}; compare it with 0.")
        if restart.shape != axes:
            remedy = "give one for each lane" if axes else "give one, since there are no lanes"
            raise UserError(f"restart must have shape {axes}; got {restart.shape}; {remedy}.")

        def one(old, initial):
            where = restart.reshape(restart.shape + (1,) * initial.ndim)
            return jnp.where(where, initial.reshape((1,) * restart.ndim + initial.shape), old)

        return jax.tree.map(one, state.hidden, self._cell.initial_hidden()), jnp.atleast_1d(restart)

    def ravel(self, state: Any, tree: Hidden) -> jax.Array:
        """A tree shaped like `state.hidden`, such as a credit, as (lanes, S), in the structure's dtype.

        Raises:
            ValueError: it is shaped otherwise.
        """
        both = tree, state.hidden
        got, like = ([jnp.shape(leaf) for leaf in jax.tree.leaves(each)] for each in both)
        if got != like:
            raise UserError(
                f"credit must have the shapes of state.hidden, {like}; got {got}; take the derivative of "
                "the loss by it."
            )
        return jax.vmap(self._structure.ravel)(self.as_lanes(state, tree)).astype(self._structure.dtype)

    def as_lanes(self, state: Any, tree: Any) -> Any:
        """Arrays of a single stream with a lanes axis of length 1."""
        return tree if self._axes(state) else jax.tree.map(lambda a: jnp.asarray(a)[None], tree)

    def like_hidden(self, state: Any, tree: Any) -> Any:
        """Arrays without the lanes axis where `state.hidden` has none."""
        return tree if self._axes(state) else jax.tree.map(lambda a: a[0], tree)

    def _axes(self, state: Any) -> tuple[int, ...]:
        """`(lanes,)`, or `()` for a single stream."""
        # Told by the state, so that nobody has to say it again with each call.
        leaf, like = jax.tree.leaves(state.hidden)[0], jax.tree.leaves(self._structure.hidden)[0]
        return leaf.shape[: leaf.ndim - like.ndim]

    def check_params(self, params: Params) -> None:
        """Raises UserError unless parameters are shaped like the cell's."""
        structure = self._structure
        expected = jax.tree.unflatten(structure.treedef, structure.leaves)
        # Without `eval_shape` a Python number among the leaves would have no dtype.
        shapes = jax.eval_shape(lambda tree: tree, params)
        if shapes_of(shapes) != shapes_of(expected):
            raise UserError(
                f"params must be shaped like cell.init(key), {shapes_of(expected)}; got "
                f"{shapes_of(shapes)}; make them with cell.init or build the cell with the sizes of these "
                "parameters."
            )


def check_credits(credits: Hidden, block: int) -> None:
    """Raises UserError unless there is a credit for each step of a block."""
    for leaf in jax.tree.leaves(credits):
        if jnp.shape(leaf)[:1] != (block,):
            raise UserError(
                f"credits must have a leading axis of {block}, the steps of a block; got shape "
                f"{jnp.shape(leaf)}; collect them over a whole block, or read each step's by grad."
            )


def write(window: tuple, residuals: tuple, place: jax.Array) -> tuple:
    """The window with a step's residuals at this place."""
    pairs = zip(window, residuals, strict=True)
    return tuple(jax.lax.dynamic_update_index_in_dim(buffer, value, place, 0) for buffer, value in pairs)


def lanes_that_fit(past: Any, lanes: int) -> int:
    """The most lanes, a divisor of all, whose pasts fit the caches of a CPU's cores; at least one.

    On any other device, and on several, all of them.
    """
    if jax.default_backend() != "cpu" or is_spread():
        return lanes
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(past)) / lanes
    divisors = (n for n in range(1, lanes + 1) if lanes % n == 0)
    return max((n for n in divisors if n * size <= _CACHE * (os.cpu_count() or 1)), default=1)


def map_lane_groups(
    push: Callable[..., tuple[Any, Any]],
    lanes: int,
    group: int,
    past: Any,
    arguments: tuple,
    axes: tuple[int | None, ...],
) -> tuple[Any, Any]:
    """`jax.vmap(push)` over all lanes, one group of them after the other.

    Intermediate results of a push are then read while they are in the cache, and few exist at a time.

    Args:
        push: `(past, *arguments) -> (past, out)`, of one lane.
        lanes: number of lanes.
        group: lanes side by side, a divisor of all.
        past: leaves (lanes, ..), overwritten where they lie.
        arguments: of all lanes.
        axes: lanes axis of each argument, or None.
    """
    every = jax.vmap(push, in_axes=(0, *axes))
    if group == lanes:
        return every(past, *arguments)

    def part(tree, axis, start):
        if axis is None:
            return tree
        if group == 1:  # without an axis of one, which products of matrices would not do without
            return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, start, axis, False), tree)
        return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, group, axis), tree)

    def turn(past, start):
        parts = (part(tree, axis, start) for tree, axis in zip((past, *arguments), (0, *axes), strict=True))
        new, out = push(*parts) if group == 1 else every(*parts)
        put = jax.lax.dynamic_update_index_in_dim if group == 1 else jax.lax.dynamic_update_slice_in_dim
        return jax.tree.map(lambda a, b: put(a, b, start, 0), past, new), out

    past, out = jax.lax.scan(turn, past, jnp.arange(0, lanes, group))
    return past, out if group == 1 else jax.tree.map(lambda a: a.reshape(lanes, *a.shape[2:]), out)


def repeat(tree: Any, count: int) -> Any:
    """A tree with a leading axis of `count` copies."""
    return jax.tree.map(lambda a: jnp.repeat(a[None], count, axis=0), tree)
