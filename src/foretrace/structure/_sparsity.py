"""Where the Jacobians of a cell's step, and its influence matrix, can differ from zero.

A parameter (in a Kronecker group: a column z with all its weights) reaches some entries of the state at
once, more after another step, and at last those that the state's own connections lead to. Parameters that
reach the same entries share a *set*, so that the influence is one small dense block per set,

    influence[rows of the set, columns of the set, factor, set],

and a step multiplies it by the part of the state Jacobian between the set's rows. Sets come last, because
there are many: one for every unit of a diagonal cell.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._xla import at_construction, jit_unoptimised
from foretrace.structure._pattern import as_columns
from foretrace.structure._structure import Structure


class Sparsity(NamedTuple):
    """Non-zeros of one step, which no parameter, state or input can move.

    Attributes:
        state: (S, S) bool, of the state Jacobian.
        direct: (S, S) bool, of its part that passes no weight of a group.
        immediate: per group (S, Z), then per dense leaf (S, size), of the immediate Jacobian.
    """

    state: np.ndarray
    direct: np.ndarray
    immediate: tuple[np.ndarray, ...]


class CutSparsity(NamedTuple):
    """Non-zeros of one step that is cut at every z: (outputs, inputs) bool, None where all are zero.

    Attributes:
        beside: from hidden to hidden', beside every z.
        factors: from hidden to the factor of every recurrent member.
        preacts: from every z to hidden'.
        chained: whether some z depends on another, or on hidden beside a product with weights.
    """

    beside: np.ndarray
    factors: tuple[np.ndarray | None, ...]
    preacts: tuple[np.ndarray, ...]
    chained: bool


class ColumnSets(NamedTuple):
    """The columns of one group or dense leaf, by the rows they reach; -1 fills shorter ones.

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


@lru_cache(maxsize=64)  # as many as there are structures
def find_sparsity(structure: Structure) -> Sparsity:
    """The non-zeros of a cell's step, found by pulling unit credits back through a generic one."""
    size, dtype = structure.state_size, structure.dtype
    leaves = [structure.leaves[leaf.leaf] for leaf in structure.dense]

    @jit_unoptimised
    def pull(eye, preacts, dense):
        start = jnp.zeros(size, dtype), preacts, dense

        def row(credit):
            _, whole = jax.vjp(structure.generic_tangent, *start)
            # The dense leaves and z stay: the leak is a part of the state Jacobian alone.
            _, part = jax.vjp(
                lambda hidden: structure.generic_tangent(hidden, preacts, dense, without_weights=True),
                start[0],
            )
            state, *immediate = whole(credit)
            rows = state, part(credit)[0], tuple(jax.tree.leaves(immediate))
            return jax.tree.map(lambda a: a.ravel() != 0, rows)

        # Rows, not columns, since there are far fewer; in batches, since each holds a copy of the weights.
        # One by one in half precision: XLA of jaxlib 0.12 ends in an internal error at some of the products
        # of matrices of bfloat16 on a CPU.
        return jax.lax.map(row, eye, batch_size=min(size, 64) if structure.rounding < 1e-4 else None)

    with at_construction():
        preacts = tuple(np.zeros(group.preact_size, dtype) for group in structure.groups)
        dense = tuple(np.zeros(leaf.shape, leaf.dtype) for leaf in leaves)
        return Sparsity(*jax.tree.map(np.asarray, pull(np.eye(size, dtype=dtype), preacts, dense)))


def find_cut_sparsity(structure: Structure) -> CutSparsity:
    """The non-zeros of a cell's step cut at every z, found by pushing units through a generic one."""
    count = len(structure.groups)

    @jit_unoptimised
    def push():
        def reach(size: int, tangents: Callable[[jax.Array], tuple]):
            units = jnp.eye(size, dtype=structure.dtype)
            outputs = jax.vmap(lambda unit: structure.generic_cut(*tangents(unit)))(units)
            return jax.tree.map(lambda a: (a != 0).reshape(size, -1).T, outputs)

        def from_preact(i: int, unit: jax.Array) -> tuple:
            return None, [unit if i == j else None for j in range(count)]

        state = reach(structure.state_size, lambda unit: (unit, None))
        groups = [
            reach(group.preact_size, lambda unit, i=i: from_preact(i, unit))
            for i, group in enumerate(structure.groups)
        ]
        return state, groups

    with at_construction():
        state, groups = jax.tree.map(np.asarray, push())
    # Any dependence of a z or of a factor on another z makes a chain of products, which no pattern holds.
    beside, factors, rests = state
    others = [rests, *(part for _, *parts in groups for part in parts)]
    return CutSparsity(
        beside,
        tuple(places if _any(places) else None for places in factors),
        tuple(output for output, *_ in groups),
        any(_any(places) for part in others for places in part),
    )


def _any(places: np.ndarray | None) -> bool:
    return places is not None and bool(places.any())


def reachable(immediate: np.ndarray, state: np.ndarray, steps: int | None) -> np.ndarray:
    """(S, columns) bool: the entries that columns reach within so many steps, or ever."""
    reached, count, is_dense = immediate, 1, bool(state.all())
    while steps is None or count < steps:
        # A product with a dense matrix needs none. As floats: NumPy multiplies boolean matrices without
        # BLAS, several times slower.
        more = reached | (
            reached.any(axis=0) if is_dense else state.astype(np.float32) @ reached.astype(np.float32) > 0
        )
        if (more == reached).all():
            break
        reached, count = more, count + 1
    return reached


def group_columns(places: np.ndarray, width: int) -> ColumnSets:
    """Sets of equal columns of a boolean (S, columns) matrix; columns without a row are in none."""
    used = np.flatnonzero(places.any(axis=0))
    # Bits in place of booleans, which sort several times faster.
    packed = np.packbits(places[:, used], axis=0)
    _, first, index = np.unique(packed, axis=1, return_index=True, return_inverse=True)
    order = np.argsort(first)  # as the columns come, so that sets lie like the units they belong to
    rows = [np.flatnonzero(places[:, used[first[g]]]) for g in order]
    by_kind = np.split(
        used[np.argsort(index.ravel(), kind="stable")], np.cumsum(np.bincount(index.ravel()))[:-1]
    )
    return ColumnSets(as_columns(rows), as_columns([by_kind[g] for g in order]), width, places.shape[1])


def sets_within(
    structure: Structure, sparsity: Sparsity, steps: int | None, without_weights: bool = False
) -> list[ColumnSets]:
    """Per group and dense leaf its columns, by what they reach within so many steps, or ever.

    `without_weights=True` counts no path from step to step through a weight of a group.
    """
    state = sparsity.direct if without_weights else sparsity.state
    columns = _columns(structure, sparsity)
    return [group_columns(reachable(places, state, steps), width) for places, width in columns]


def is_sparse_cheaper(structure: Structure, sparsity: Sparsity) -> bool:
    """Whether so few entries are ever reached that the exact recursion is cheaper on them alone."""
    whole = sum(places.shape[1] * width for places, width in _columns(structure, sparsity))
    sparse = sum(sets.operations for sets in sets_within(structure, sparsity, None))
    # An entry takes longer in many small products than in one large one. The margin of 4 decides nothing in
    # the cells here: their ratio is far below it (units on their own) or above (every unit sees all).
    return 4 * sparse <= structure.state_size**2 * whole


def _columns(structure: Structure, sparsity: Sparsity) -> list[tuple[np.ndarray, int]]:
    """Per group and dense leaf the non-zeros of its immediate Jacobian, and the weights per column."""
    widths = [group.factor_size for group in structure.groups] + [1] * len(structure.dense)
    return list(zip(sparsity.immediate, widths, strict=True))
