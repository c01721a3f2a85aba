"""Where a cell's influence matrix can differ from zero, and the values there at the price of their number.

A parameter (in a Kronecker group: a column z with all its weights) reaches some entries of the state at
once, more after another step, and at last those that the state's own connections lead to. Parameters that
reach the same entries share a *set*, so that the influence is one small dense block per set,

    influence[rows of the set, columns of the set, factor, set],

and a step multiplies it by the part of the state Jacobian between the set's rows. Sets come last, because
there are many: one for every unit of a diagonal cell.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._types import Params
from foretrace._xla import jit_unoptimised
from foretrace.structure._jacobians import COLOURS, Transport
from foretrace.structure._pattern import take
from foretrace.structure._structure import Structure


class Reach(NamedTuple):
    """Non-zeros of one step, which no parameter, state or input can move.

    Attributes:
        state: (S, S) bool, of the state Jacobian.
        direct: (S, S) bool, of what of it passes no weight of a group.
        immediate: per group (S, Z), then per dense leaf (S, size), of the immediate Jacobian.
    """

    state: np.ndarray
    direct: np.ndarray
    immediate: tuple[np.ndarray, ...]


class Sets(NamedTuple):
    """The columns of one group or dense leaf, by the rows they reach; -1 fills what is shorter.

    Attributes:
        rows: (K, G) int.
        columns: (C, G) int.
        width: F of a group, 1 of a dense leaf.
        total: number of columns, those that reach nothing included.
    """

    rows: np.ndarray
    columns: np.ndarray
    width: int
    total: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(K, C, F, G), of the influence."""
        return len(self.rows), len(self.columns), self.width, self.rows.shape[1]

    @property
    def operations(self) -> int:
        """Multiplications of one step of this influence."""
        return int(np.prod(self.shape)) * len(self.rows)


class Entries(NamedTuple):
    """A sparse matrix, of which `values` holds the rows (or columns) of one colour added up.

    Attributes:
        values: (colours, columns), or transposed (colours, rows).
        colour: of every row, or column.
        places: (rows, columns) bool.
        transposed: whether columns are added up.
    """

    values: jax.Array
    colour: np.ndarray
    places: np.ndarray
    transposed: bool

    def at(self, i: np.ndarray, j: np.ndarray) -> jax.Array:
        """Entries at rows i and columns j, which broadcast; zero where one of them is -1."""
        i, j = np.broadcast_arrays(i, j)
        valid = (i >= 0) & (j >= 0)
        line, along = (j, i) if self.transposed else (i, j)
        index = self.colour[line] * self.values.shape[1] + along
        found = take(self.values.reshape(-1), np.where(valid, index, -1).ravel(), 0).reshape(i.shape)
        valid &= self.places[i, j]
        return found if valid.all() else jnp.where(valid, found, 0)


@lru_cache(maxsize=64)
def find_reach(structure: Structure) -> Reach:
    """The non-zeros of a cell's step, found by pulling unit credits back through a generic one."""
    size, dtype = structure.state_size, structure.dtype
    leaves = [structure.leaves[leaf.leaf] for leaf in structure.dense]

    @jit_unoptimised
    def pull(eye, preacts, dense):
        start = jnp.zeros(size, dtype), preacts, dense

        def row(credit):
            _, whole = jax.vjp(structure.spread, *start)
            _, part = jax.vjp(
                lambda hidden: structure.spread(hidden, preacts, dense, direct=True), start[0]
            )
            state, *immediate = whole(credit)
            found = state, part(credit)[0], tuple(jax.tree.leaves(immediate))
            return jax.tree.map(lambda a: a.ravel() != 0, found)

        return jax.lax.map(row, eye, batch_size=min(size, 64))

    with jax.ensure_compile_time_eval():
        preacts = tuple(np.zeros(group.preact_size, dtype) for group in structure.groups)
        dense = tuple(np.zeros(leaf.shape, leaf.dtype) for leaf in leaves)
        return Reach(*jax.tree.map(np.asarray, pull(np.eye(size, dtype=dtype), preacts, dense)))


def reachable(immediate: np.ndarray, state: np.ndarray, steps: int | None) -> np.ndarray:
    """(S, columns) bool: what columns reach within so many steps, or ever."""
    found, count = immediate, 1
    while steps is None or count < steps:
        more = found | ((state.astype(np.float32) @ found.astype(np.float32)) > 0)
        if (more == found).all():
            break
        found, count = more, count + 1
    return found


def sets_of(places: np.ndarray, width: int) -> Sets:
    """Columns of a boolean (S, columns) matrix that are alike, together; those without a row nowhere."""
    used = np.flatnonzero(places.any(axis=0))
    packed = np.packbits(places[:, used], axis=0)
    _, first, index = np.unique(packed, axis=1, return_index=True, return_inverse=True)
    order = np.argsort(first)  # as the columns come
    rows = [np.flatnonzero(places[:, used[first[g]]]) for g in order]
    by_kind = np.split(
        used[np.argsort(index.ravel(), kind="stable")], np.cumsum(np.bincount(index.ravel()))[:-1]
    )
    return Sets(_table(rows), _table([by_kind[g] for g in order]), width, places.shape[1])


def sets_within(structure: Structure, reach: Reach, steps: int | None, direct: bool = False) -> list[Sets]:
    """Per group and dense leaf what its columns reach within so many steps; `direct`, through no weight."""
    state = reach.direct if direct else reach.state
    return [sets_of(reachable(places, state, steps), width) for places, width in _columns(structure, reach)]


def fits_sparse(structure: Structure, reach: Reach) -> bool:
    """Whether the entries that are ever reached are so few that the exact recursion is cheaper on them."""
    whole = sum(places.shape[1] * width for places, width in _columns(structure, reach))
    sparse = sum(sets.operations for sets in sets_within(structure, reach, None))
    return 4 * sparse <= structure.state_size**2 * whole


def linearisation(
    structure: Structure, reach: Reach, direct: bool = False
) -> Callable[[Params, tuple, Transport], tuple[Entries, list[Entries]]]:
    """How to find a step's Jacobians: `(params, residuals, transport) -> (state, immediate)` entries.

    Rows that share no column are pulled back together, as one credit; columns that share no row are pushed
    forward together, as one tangent. What has too many of both is found row by row.

    Args:
        structure: of the cell.
        reach: its non-zeros.
        direct: whether the state Jacobian is to be that through no weight of a group.
    """
    size, groups = structure.state_size, len(structure.groups)
    matrices = [reach.direct if direct else reach.state, *reach.immediate]
    joint, together, rows = np.zeros((size, 0), bool), [], np.zeros(size, int)
    for i in range(int(direct), len(matrices)):
        more = np.concatenate([joint, matrices[i]], axis=1)
        if (found := colours(more)) is not None:
            joint, rows, together = more, found, [*together, i]
    apart = {i: colours(m.T) for i, m in enumerate(matrices) if i not in together}
    columns = {i: found for i, found in apart.items() if found is not None}
    whole = [i for i in apart if i not in columns]

    def forward(params, residuals, i, seed):
        """The product of matrix i with a tangent."""
        if i == 0:
            return structure.pushforward(params, residuals, seed, direct=direct)
        if i <= groups:
            preacts = [seed if i == g + 1 else None for g in range(groups)]
            return structure.pushforward(params, residuals, None, preacts)
        leaves = [structure.leaves[leaf.leaf] for leaf in structure.dense]
        pairs = enumerate(leaves, start=groups + 1)
        dense = [seed.reshape(a.shape).astype(a.dtype) if i == n else None for n, a in pairs]
        return structure.pushforward(params, residuals, None, None, dense)

    def linearise(params, residuals, transport):
        out: dict[int, Entries] = {}
        if together:
            pullback = jax.vmap(structure.pullback, in_axes=(None, None, 0))
            state, preacts, dense = pullback(params, residuals, _seeds(rows, structure.dtype))
            found = [state, *preacts, *(leaf.reshape(len(state), -1) for leaf in dense)]
            out |= {i: Entries(found[i], rows, matrices[i], False) for i in together}
        for i, colour in columns.items():
            seeds = _seeds(colour, structure.dtype)
            values = jax.vmap(lambda seed, i=i: forward(params, residuals, i, seed))(seeds)
            out[i] = Entries(values, colour, matrices[i], True)
        if whole:
            state, preacts, dense = transport.jacobians(params, residuals)
            found = [state, *preacts, *dense]
            if direct:
                eye = jnp.eye(size, dtype=structure.dtype)
                found[0] = jax.vmap(lambda seed: forward(params, residuals, 0, seed), out_axes=1)(eye)
            out |= {i: Entries(found[i], np.arange(size), matrices[i], False) for i in whole}
        state, *immediate = (out[i] for i in range(len(matrices)))
        return state, immediate

    return linearise


def colours(places: np.ndarray) -> np.ndarray | None:
    """Colours of rows such that rows of one colour share no column, or None where that takes too many."""
    if places.sum(axis=0).max(initial=0) > COLOURS:
        return None
    colour, used = np.zeros(len(places), int), np.zeros((COLOURS, places.shape[1]), bool)
    for i, row in enumerate(places):
        free = ~(used & row).any(axis=1)
        if not free.any():
            return None
        colour[i] = np.argmax(free)
        used[colour[i]] |= row
    return colour


def _seeds(colour: np.ndarray, dtype: Any) -> jax.Array:
    """(colours, n), ones where an entry has the colour."""
    return jnp.asarray(colour[None] == np.arange(colour.max(initial=0) + 1)[:, None], dtype)


def _columns(structure: Structure, reach: Reach) -> list[tuple[np.ndarray, int]]:
    """Per group and dense leaf the non-zeros of its immediate Jacobian, and the weights per column."""
    widths = [group.factor_size for group in structure.groups] + [1] * len(structure.dense)
    return list(zip(reach.immediate, widths, strict=True))


def _table(lists: Sequence[np.ndarray]) -> np.ndarray:
    """Lists as columns of a table, -1 where one is shorter than the longest."""
    out = np.full((max(map(len, lists), default=0), len(lists)), -1)
    for i, found in enumerate(lists):
        out[: len(found), i] = found
    return out
