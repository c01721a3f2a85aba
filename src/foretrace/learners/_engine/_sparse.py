"""The past as those entries of the influence matrix that parameters reach within so many steps."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._xla import computed_once
from foretrace.learners._catalogue._requirements import Requirement
from foretrace.learners._engine._block import Block
from foretrace.learners._engine._pairs import as_numbers, find_turn, turned
from foretrace.learners._engine._past import GroupedGradient, NoInfo, PastRule
from foretrace.structure._linearisation import linearisation
from foretrace.structure._pattern import Entries, gather
from foretrace.structure._sparsity import ColumnSets, find_sparsity, sets_within
from foretrace.structure._structure import Structure

# So many rows are multiplied one by one; XLA on a CPU sums over an axis of two entries many times slower
# (`foretrace bench every-32`, snap:1 and eprop).
SMALL = 4


class SparsePast(NamedTuple):
    """Per group and dense leaf (K, C, F, G): K rows of the influence for C columns alike, in G sets.

    Two rows are one of complex numbers (1, C, F, G), and of columns that turn the first is all, C = 1.
    """

    parts: tuple[jax.Array, ...]


class SparseRule(PastRule[SparsePast]):
    """Keeps the entries that are reached within `steps` steps, or ever; holds the others at zero.

    influence <- mask * (state_jacobian influence + immediate_jacobian)
    """

    is_random = False
    needs_no_window = True

    def __init__(
        self,
        structure: Structure,
        *,
        steps: int | None = None,
        without_weights: bool = False,
    ) -> None:
        """Finds the entries.

        Args:
            structure: of the cell.
            steps: steps within which an entry must be reached; None for any number, which is exact.
            without_weights: whether the state Jacobian leaves out every path through a weight of a group.
        """
        super().__init__(structure)
        sparsity = find_sparsity(structure)
        self.sets = sets_within(structure, sparsity, steps, without_weights)
        self.linearise = linearisation(structure, sparsity, without_weights)
        groups = len(structure.groups)
        self.turns = [
            find_turn(structure, i, part) if i < groups and not without_weights else 0
            for i, part in enumerate(self.sets)
        ]

    def empty(self) -> SparsePast:
        """See `PastRule`."""

        def zeros(part, turn):
            rows, columns, *others = part.shape
            if rows != 2:
                return jnp.zeros(part.shape, self.structure.dtype)
            kind = np.result_type(self.structure.dtype, np.complex64)
            return jnp.zeros((1, 1 if turn else columns, *others), kind)

        return SparsePast(tuple(map(zeros, self.sets, self.turns)))

    def read(self, past: SparsePast, credit: jax.Array) -> GroupedGradient:
        """See `PastRule`."""
        return self.place(self.collect(past, credit))

    def collect(self, past: SparsePast, credit: jax.Array) -> list[jax.Array]:
        """See `PastRule`: per group and dense leaf (C, F, G), complex where that holds two columns."""

        def part(sets, turn, old):
            if not jnp.iscomplexobj(old):
                return arriving(sets, old, credit)
            rows = gather(credit, sets.rows.ravel(), 0).reshape(sets.rows.shape)
            product = jnp.conj(as_numbers(rows))[None, None] * old[0]
            return product if turn else product.real

        return list(map(part, self.sets, self.turns, past.parts))

    def place(self, collected: list[jax.Array]) -> GroupedGradient:
        """See `PastRule`."""

        def columns(values, turn):
            return jnp.concatenate([values.real, -turn * values.imag]) if turn else values

        return scatter_columns(self.structure, self.sets, list(map(columns, collected, self.turns)))

    def push(self, key: jax.Array, past: SparsePast, block: Block) -> tuple[SparsePast, NoInfo]:
        """See `PastRule`."""

        def step(past, params, residuals, jacobians, each):
            state, immediate = self.linearise(params, residuals, jacobians)
            parts = advance_entries(
                self.structure, self.sets, past.parts, residuals, state, immediate, self.turns
            )
            return SparsePast(parts), None

        return block.fold(step, past)[0], NoInfo()


def advance_entries(
    structure: Structure,
    sets: list[ColumnSets],
    parts: tuple,
    residuals: tuple,
    state: Entries,
    immediate: list,
    turns: list[int] | None = None,
) -> tuple[jax.Array, ...]:
    """One step of the entries of every group and dense leaf, as in `SparsePast`; `turns` of its columns."""
    factors = (*structure.factors(residuals), *(jnp.ones(1, structure.dtype) for _ in structure.dense))
    out, turns = [], turns or [0] * len(sets)
    for part, turn, old, jacobian, factor in zip(sets, turns, parts, immediate, factors, strict=True):
        carried, new = matrices_of_sets(part, state, jacobian)
        # The Jacobians in memory, or XLA makes them anew for every weight; of complex numbers the sum too,
        # or it is made anew in every read, from the old past, which XLA then has to copy.
        if jnp.iscomplexobj(old):
            new = computed_once(as_numbers(new[:, : old.shape[1]])[None])
            moved = turned(carried, old, bool(turn))
            out.append(
                computed_once(moved + new[:, :, None] * factor.astype(new.dtype)[None, None, :, None])
            )
        else:
            carried, new = computed_once(carried), computed_once(new)
            out.append(product_of_sets(carried, old) + new[:, :, None] * factor[None, None, :, None])
    return tuple(out)


def matrices_of_sets(part: ColumnSets, state: Entries, immediate: Entries) -> tuple[jax.Array, jax.Array]:
    """The state Jacobian between the rows of every set, (K, K, G), and the immediate one, (K, C, G)."""
    # Sets with fewer rows or columns than others are filled up by -1, for which `at` gives zeros.
    carried = state.at(part.rows[:, None], part.rows[None])
    return carried, immediate.at(part.rows[:, None], part.columns[None])


def arriving(part: ColumnSets, old: jax.Array, credit: jax.Array) -> jax.Array:
    """Credit (S,) times the entries of one group or dense leaf, (C, F, G)."""
    rows = part.rows.ravel()
    return product_of_sets(gather(credit, rows, 0).reshape(1, *part.rows.shape), old)[0]


def scatter_columns(
    structure: Structure, sets: list[ColumnSets], columns_of: list[jax.Array]
) -> GroupedGradient:
    """Gradients of the columns of every set, (C, F, G), in the places of the parameters."""
    out = []
    for part, values in zip(sets, columns_of, strict=True):
        columns = part.columns.ravel()
        if not columns.size:  # nothing of it reaches the state
            out.append(jnp.zeros((part.width, part.total), structure.dtype))
            continue
        if len(values) <= SMALL:
            values = jnp.concatenate(list(values), axis=1)
        else:
            values = values.swapaxes(0, 1).reshape(part.width, -1)
        # Where each column lies among the sets; one that reaches nothing is in none, and gets a zero.
        place = np.full(part.total, -1)
        place[columns[columns >= 0]] = np.flatnonzero(columns >= 0)
        out.append(gather(values, place, 1))
    groups, dense = out[: len(structure.groups)], out[len(structure.groups) :]
    shapes = (structure.leaves[leaf.leaf].shape for leaf in structure.dense)
    return GroupedGradient(tuple(groups), tuple(a.reshape(s) for a, s in zip(dense, shapes, strict=True)))


def product_of_sets(left: jax.Array, right: jax.Array) -> jax.Array:
    """Left (I, K, G) times right (K, C, F, G), for every set: (I, C, F, G)."""
    if 0 < len(right) <= SMALL:
        parts = [left[:, k, None, None] * right[None, k] for k in range(len(right))]
        return sum(parts[1:], start=parts[0])
    return jnp.einsum("ikg,kcfg->icfg", left, right)


def unit_rule(requirement: Requirement, name: str) -> Callable[[Structure], SparseRule]:
    """The rule of a learner that follows each unit's own dynamics, along no weight.

    Args:
        requirement: the class of cells that it takes.
        name: of the learner, for the sentence that refuses others.
    """

    def rule(structure: Structure) -> SparseRule:
        requirement.check(structure, name)
        return SparseRule(structure, without_weights=True)

    return rule
