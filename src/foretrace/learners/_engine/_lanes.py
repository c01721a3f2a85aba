"""Lanes of streams and the structure of their cell: what learners of every kind begin with."""

import os
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from foretrace._checks import UserError, check_count
from foretrace._types import Cell, Hidden, Input, Params, State
from foretrace.structure._find import shapes_of, structure_of
from foretrace.structure._structure import Structure

_CACHE = 2**21  # bytes; about what a core has for itself


def once_for_shapes(cell: Cell, build: Callable[[Structure], Any]) -> Callable[[Params], Any]:
    """`(params) -> build(structure)`, computed once for parameters of the same shapes."""
    build = cache(build)
    return lambda params: build(structure_of(cell, params))


def first_hidden(cell: Cell, lanes: Any) -> tuple[Hidden, int]:
    """The hidden state that streams start from, and the number of lanes, 1 for a single stream."""
    if lanes is None:
        return cell.initial_hidden(), 1
    count = check_count("lanes", lanes, "for a single stream leave it out")
    return repeat(cell.initial_hidden(), count), count


def forward(structure: Structure, params: Params, state: State, x: Input) -> tuple[Hidden, tuple]:
    """The next hidden state, like `state.hidden`, and the residuals of the step, leaves (lanes, ..).

    Raises:
        ValueError: `x` is not shaped like the cell's example.
    """
    hidden, x = as_lanes(structure, state, (state.hidden, x))
    given = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
    if shapes_of(given) != shapes_of(structure.x):
        raise UserError(
            f"x must be {shapes_of(structure.x)} for each lane, like cell.example_input(); got "
            f"{shapes_of(given)}; convert it or build the cell for it."
        )
    flat = jax.vmap(structure.ravel)(hidden)
    flat, residuals = jax.vmap(structure.forward, in_axes=(None, 0, 0))(params, flat, x)
    return like_hidden(structure, state, jax.vmap(structure.unravel)(flat)), residuals


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
    parts = (
        n for n in range(1, lanes + 1) if lanes % n == 0 and n * size <= _CACHE * (os.cpu_count() or 1)
    )
    return max(parts, default=1)


def by_groups(
    push: Callable[..., tuple[Any, Any]],
    lanes: int,
    group: int,
    past: Any,
    given: tuple,
    axes: tuple[int | None, ...],
) -> tuple[Any, Any]:
    """`jax.vmap(push)` over so many lanes, a group of them after the other.

    What a push makes on its way is then read while it is in the cache, and there is little of it at once.

    Args:
        push: `(past, *given) -> (past, out)`, of one lane.
        lanes: how many there are.
        group: lanes at a time, a divisor of all.
        past: leaves (lanes, ..), overwritten where they lie.
        given: what else a lane gets.
        axes: of each of these the lanes axis, or None.
    """
    every = jax.vmap(push, in_axes=(0, *axes))
    if group == lanes:
        return every(past, *given)

    def turn(past, start):
        def part(tree, axis):
            if axis is None:
                return tree
            return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, group, axis), tree)

        new, out = every(part(past, 0), *map(part, given, axes))
        put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=start, axis=0)
        return jax.tree.map(put, past, new), out

    past, out = jax.lax.scan(turn, past, jnp.arange(0, lanes, group))
    return past, jax.tree.map(lambda a: a.reshape(lanes, *a.shape[2:]), out)


def begin(cell: Cell, hidden: Hidden, restart: jax.Array) -> Hidden:
    """The hidden state with the lanes that restart at the cell's initial one."""

    def one(old, initial):
        where = restart.reshape(restart.shape + (1,) * initial.ndim)
        return jnp.where(where, initial.reshape((1,) * restart.ndim + initial.shape), old)

    return jax.tree.map(one, hidden, cell.initial_hidden())


def as_lanes(structure: Structure, state: State, tree: Any) -> Any:
    """Gives the arrays of a single stream a lanes axis of length one."""
    return tree if _has_lanes(structure, state) else jax.tree.map(lambda a: jnp.asarray(a)[None], tree)


def like_hidden(structure: Structure, state: State, tree: Any) -> Any:
    """Takes the lanes axis off again where `state.hidden` has none."""
    return tree if _has_lanes(structure, state) else jax.tree.map(lambda a: a[0], tree)


def repeat(tree: Any, count: int) -> Any:
    """A tree with a leading axis of so many copies."""
    return jax.tree.map(lambda a: jnp.repeat(a[None], count, axis=0), tree)


def _has_lanes(structure: Structure, state: State) -> bool:
    leaf, like = jax.tree.leaves(state.hidden)[0], jax.tree.leaves(structure.hidden)[0]
    return leaf.ndim > like.ndim
