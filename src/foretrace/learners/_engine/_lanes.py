"""Lanes, streams side by side: with or without a lanes axis, and in groups one after the other."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from foretrace._checks import UserError, UserTypeError, check_positive_int
from foretrace._types import Cell, Hidden, Input, Params
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
        self._check_params(params)
        # Copies, because a training loop may give away the memory of a state.
        hidden, key = jax.tree.map(jnp.copy, (self._cell.initial_hidden(), key))
        if lanes is None:
            return hidden, 1, key
        count = check_positive_int("lanes", lanes, "for a single stream leave it out")
        return repeat(hidden, count), count, key

    def forward(self, params: Params, state: Any, x: Input) -> tuple[Hidden, tuple[jax.Array, ...]]:
        """The next hidden state, like `state.hidden`, and the residuals of the step, leaves (lanes, ..).

        Raises:
            ValueError: `x` is not shaped like the cell's example.
        """
        structure = self._structure
        self._check_params(params)
        hidden, x = self.as_lanes(state, (state.hidden, x))
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
        if shapes_of(shapes) != shapes_of(structure.x):
            raise UserError(
                f"x must be {shapes_of(structure.x)} for each lane, like cell.example_input(); got "
                f"{shapes_of(shapes)}; convert it or build the cell for it."
            )
        flat = jax.vmap(structure.ravel)(hidden)
        flat, residuals = jax.vmap(structure.forward, in_axes=(None, 0, 0))(params, flat, x)
        return self.like_hidden(state, jax.vmap(structure.unravel)(flat)), residuals

    def begin(self, state: Any, restart: Any) -> tuple[Hidden, jax.Array]:
        """The hidden state with the lanes that restart at the cell's initial one, and these, (lanes,).

        Raises:
            TypeError, ValueError: `restart` is not one bool for each lane.
        """
        restart, initial = jnp.asarray(restart), self._cell.initial_hidden()
        lanes = jax.tree.leaves(state.hidden)[0].shape[:1] if self._has_lanes(state) else ()
        if restart.dtype != bool:
            raise UserTypeError(
                f"restart must be of bools; got {restart.dtype}; compare it, as in restart != 0."
            )
        if restart.shape != lanes:
            raise UserError(
                f"restart must have the shape {lanes}, a bool for each lane; got {restart.shape}; for all "
                f"lanes alike give jnp.full({lanes}, True)."
            )

        def one(old, initial):
            where = restart.reshape(restart.shape + (1,) * initial.ndim)
            return jnp.where(where, initial.reshape((1,) * restart.ndim + initial.shape), old)

        return jax.tree.map(one, state.hidden, initial), restart.reshape(-1)

    def ravel(self, state: Any, tree: Hidden) -> jax.Array:
        """A tree shaped like `state.hidden`, such as a credit, as (lanes, S), in the structure's dtype."""
        return jax.vmap(self._structure.ravel)(self.as_lanes(state, tree)).astype(self._structure.dtype)

    def as_lanes(self, state: Any, tree: Any) -> Any:
        """Arrays of a single stream with a lanes axis of length 1."""
        return tree if self._has_lanes(state) else jax.tree.map(lambda a: jnp.asarray(a)[None], tree)

    def like_hidden(self, state: Any, tree: Any) -> Any:
        """Arrays without the lanes axis where `state.hidden` has none."""
        return tree if self._has_lanes(state) else jax.tree.map(lambda a: a[0], tree)

    def _has_lanes(self, state: Any) -> bool:
        leaf, like = jax.tree.leaves(state.hidden)[0], jax.tree.leaves(self._structure.hidden)[0]
        return leaf.ndim > like.ndim

    def _check_params(self, params: Params) -> None:
        structure = self._structure
        expected = jax.tree.unflatten(structure.treedef, structure.leaves)
        shapes = jax.eval_shape(lambda tree: tree, params)
        if shapes_of(shapes) != shapes_of(expected):
            raise UserError(
                f"params must be shaped like cell.init(key), {shapes_of(expected)}; got "
                f"{shapes_of(shapes)}; make them with cell.init or build the cell with the sizes of these "
                "parameters."
            )


def write(window: tuple, residuals: tuple, place: jax.Array) -> tuple:
    """The window with a step's residuals at this place."""
    pairs = zip(window, residuals, strict=True)
    return tuple(jax.lax.dynamic_update_index_in_dim(buffer, value, place, 0) for buffer, value in pairs)


def lanes_that_fit(past: Any, lanes: int) -> int:
    """The most lanes, a divisor of all, whose pasts fit the caches of a CPU's cores; at least one.

    On any other device all of them.
    """
    if jax.default_backend() != "cpu":
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

    def turn(past, start):
        def part(tree, axis):
            if axis is None:
                return tree
            return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, group, axis), tree)

        new, out = every(part(past, 0), *map(part, arguments, axes))
        put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=start, axis=0)
        return jax.tree.map(put, past, new), out

    past, out = jax.lax.scan(turn, past, jnp.arange(0, lanes, group))
    return past, jax.tree.map(lambda a: a.reshape(lanes, *a.shape[2:]), out)


def repeat(tree: Any, count: int) -> Any:
    """A tree with a leading axis of `count` copies."""
    return jax.tree.map(lambda a: jnp.repeat(a[None], count, axis=0), tree)
