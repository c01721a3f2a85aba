"""Jacobians of a cell's step as matrices, at the price of their non-zeros where these have fixed places.

In the papers' cells z acts elementwise on the state. With C_g the Jacobian of hidden' at the pre-activation
z_g, E its Jacobian at hidden beside the z, and V_m that of the m-th input factor, all sparse, and W_m the
weights of that factor,

    preact_jacobian = C_g,    state_jacobian = E + sum_g C_g sum_m W_m^T V_m .

The places of the non-zeros are found once; their values come from a few tangents. An LSTM's weights read
half of its state: the columns of V_m outside of that half are zero, and a block multiplies by none of them.
Any other cell gets its Jacobians row by row, by pulling back.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._types import Params
from foretrace.structure._pattern import (
    Entries,
    Pattern,
    by_rows,
    entries_of,
    find_pattern,
    gathered_rows,
    rows_times,
    times_columns,
)
from foretrace.structure._sparsity import Sparsity, find_cut_sparsity
from foretrace.structure._structure import Structure


class JacobianRule(ABC):
    """Maps rows Q, (N, S) or None for the identity, to Q times each Jacobian of one step.

    Split into several functions, so that a block can make once what it needs at every step, and can choose
    where its large matrices are made, which is outside of its loop.
    """

    def __init__(self, structure: Structure):
        self.structure = structure

    @abstractmethod
    def weights(self, params: Params) -> Any:
        """The part of the parameters that `step` reads, in the form in which it does."""

    @abstractmethod
    def values(self, params: Params, residuals: tuple) -> Any:
        """The values of one step, few numbers."""

    @abstractmethod
    def step(
        self, weights: Any, values: Any, rows: jax.Array | None, cut: jax.Array
    ) -> tuple[jax.Array, Any, tuple[jax.Array, ...]]:
        """Rows through one step.

        Args:
            weights: of `weights`.
            values: of `values`.
            rows: Q.
            cut: bool; where it is true, nothing comes from the state before.

        Returns:
            Q state_jacobian (N, S), slopes, and per dense leaf Q immediate_jacobian (N, size).
        """

    @abstractmethod
    def rights(self, slopes: Any, rows: jax.Array | None) -> tuple[jax.Array, ...]:
        """Per group Q preact_jacobian (N, Z)."""

    def entries(self, slopes: Any) -> tuple[tuple[jax.Array, np.ndarray], ...] | None:
        """Per group the entries (n,) of preact_jacobian and their places (n,) in the flattened matrix.

        Places are fixed and all different, all other entries are zero; None where they are not known.
        """
        del slopes

    def jacobians(
        self, params: Params, residuals: tuple
    ) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        """state_jacobian (S, S), per group preact_jacobian (S, Z), per dense leaf (S, size)."""
        values, cut = self.values(params, residuals), jnp.zeros((), bool)
        state, slopes, dense = self.step(self.weights(params), values, None, cut)
        return state, self.rights(slopes, None), dense


@lru_cache(maxsize=64)  # as many as there are structures
def jacobian_rule(structure: Structure) -> JacobianRule:
    """The rule from non-zeros where these have fixed places, else row by row."""
    patterns = find_patterns(structure)
    return RowByRow(structure) if patterns is None else FromEntries(structure, patterns)


class RowByRow(JacobianRule):
    """Pulls every row back through the step: for any cell."""

    def weights(self, params: Params) -> Params:
        """The parameters."""
        return params

    def values(self, params: Params, residuals: tuple) -> tuple:
        """The residuals."""
        return residuals

    def step(self, weights, values, rows, cut):
        """See `JacobianRule`; the slopes are the products with preact_jacobian."""
        structure = self.structure
        rows = jnp.eye(structure.state_size, dtype=structure.dtype) if rows is None else rows
        pullback = jax.vmap(structure.pullback, in_axes=(None, None, 0))
        state, preacts, dense = pullback(weights, values, rows)
        dense = tuple(leaf.reshape(leaf.shape[0], -1) for leaf in dense)
        return jnp.where(cut, 0, state), preacts, dense

    def rights(self, slopes, rows):
        """The slopes."""
        return slopes


class Patterns(NamedTuple):
    """Patterns of the Jacobians of a step cut at every z.

    Attributes:
        beside: of E.
        factors: of V, by the place of the recurrent member; those that are zero are left out.
        preacts: of C, per group.
        fixed: per recurrent member, whether V is the same at every step.
    """

    beside: Pattern
    factors: dict[int, Pattern]
    preacts: tuple[Pattern, ...]
    fixed: tuple[bool, ...]


def find_patterns(structure: Structure) -> Patterns | None:
    """The patterns; None where some z feeds another, or one is too dense."""
    if not structure.linear_part.is_elementwise:
        return None
    sparsity = find_cut_sparsity(structure)
    if sparsity.chained:
        return None
    used = {i: places for i, places in enumerate(sparsity.factors) if places is not None}
    matrices = [sparsity.beside, *used.values(), *sparsity.preacts]
    patterns = [pattern for a in matrices if (pattern := find_pattern(a)) is not None]
    if len(patterns) < len(matrices):
        return None
    factors = dict(zip(used, patterns[1:], strict=False))
    return Patterns(
        patterns[0], factors, tuple(patterns[1 + len(used) :]), structure.linear_part.fixed_factors()
    )


class FromEntries(JacobianRule):
    """From the values of few non-zeros, and one product with the weights."""

    def __init__(self, structure: Structure, patterns: Patterns):
        super().__init__(structure)
        self._patterns = patterns
        # Per group, of the members whose factor the state reaches: their rows, sign and place in `factors`.
        self._members: list[list[tuple[slice, int, int]]] = []
        index = 0
        for group in structure.groups:
            starts = itertools.accumulate((m.rows for m in group.members), initial=0)
            self._members.append([])
            for member, start in zip(group.members, starts, strict=False):
                if member.recurrent_use is None:
                    continue
                if index in patterns.factors:
                    self._members[-1].append((slice(start, start + member.rows), member.sign, index))
                index += 1
        # The run of state entries that weights read, and every V there.
        columns = [np.flatnonzero(p.places.any(axis=0)) for p in patterns.factors.values()]
        self._start = min((c[0] for c in columns), default=0)
        self._stop = max((c[-1] for c in columns), default=-1) + 1
        run = slice(self._start, self._stop)
        self._inputs = {i: Pattern(p.places[:, run], p.colour[run]) for i, p in patterns.factors.items()}

    def weights(self, params: Params) -> list[list[list[jax.Array]]]:
        """Per group and member the rows of W^T that C selects, times V where V is always the same.

        Selected here and not in `step`: in a loop XLA:CPU reads parts of an array that does not change one
        number at a time.
        """
        # Where V is the same at every step, it is that of any residuals.
        anywhere = tuple(jnp.zeros(a.shape, a.dtype) for a in self.structure.residual_shapes)

        def feed(matrix, index):
            if not self._patterns.fixed[index]:
                return matrix
            return rows_times(self._inputs[index], self._factor(params, anywhere, index), matrix)

        groups = zip(self._patterns.preacts, self.structure.matrices(params), self._members, strict=True)
        return [
            [gathered_rows(pattern, feed(sign * matrix[rows].T, i)) for rows, sign, i in members]
            for pattern, matrix, members in groups
        ]

    def values(self, params: Params, residuals: tuple) -> tuple:
        """Values of E (None where it is zero), of every V that differs from step to step, of every C."""
        patterns, cut, count = self._patterns, self.structure.cut, len(self.structure.groups)
        beside = None
        if patterns.beside.places.any():
            beside = self._tangents(patterns.beside, lambda seed: cut(params, residuals, seed)[0])
        factors = {i: self._factor(params, residuals, i) for i in patterns.factors if not patterns.fixed[i]}
        slopes = []
        for i, pattern in enumerate(patterns.preacts):
            alone = lambda seed, i=i: [seed if i == j else None for j in range(count)]  # noqa: E731
            push = lambda seed, alone=alone: cut(params, residuals, None, alone(seed))[0]  # noqa: E731
            slopes.append(self._tangents(pattern, push))
        return beside, factors, tuple(slopes)

    def step(self, weights, values, rows, cut):
        """See `JacobianRule`; the slopes are the values of every C."""
        size, dtype = self.structure.state_size, self.structure.dtype
        start, stop, pattern = self._start, self._stop, self._patterns.beside
        beside, factors, slopes = values
        # The slopes go out whole: what the step itself adds to the influence does not end at a cut.
        beside, across = jax.tree.map(lambda a: jnp.where(cut, 0, a), (beside, slopes))
        through = jnp.zeros((size, stop - start), dtype)
        groups = zip(self._patterns.preacts, across, weights, self._members, strict=True)
        for c, slope, matrices, members in groups:
            # Rows of D z / d hidden that C selects: the weights, their columns moved and scaled by V.
            feeds = [
                [rows_times(self._inputs[i], factors[i], a) for a in each] if i in factors else each
                for each, (*_, i) in zip(matrices, members, strict=True)
            ]
            if feeds:
                total = [reduce(jnp.add, each) for each in zip(*feeds, strict=True)]
                through = through + times_columns(c, slope, total)

        def widened(a):
            return jnp.pad(a, ((0, 0), (start, size - stop)))

        # The product is taken before it is widened, so that it has only the columns that weights read.
        if rows is not None and stop - start < size:
            moved = widened(rows @ through)
            return moved if beside is None else rows_times(pattern, beside, rows) + moved, slopes, ()
        jacobian = widened(through)
        if beside is not None:
            eye = gathered_rows(pattern, jnp.eye(size, dtype=dtype))
            jacobian = times_columns(pattern, beside, eye) + jacobian
        return jacobian if rows is None else rows @ jacobian, slopes, ()

    def rights(self, slopes, rows):
        """See `JacobianRule`."""
        rows = jnp.eye(self.structure.state_size, dtype=self.structure.dtype) if rows is None else rows
        pairs = zip(self._patterns.preacts, slopes, strict=True)
        return tuple(rows_times(*pair, rows) for pair in pairs)

    def entries(self, slopes):
        """See `JacobianRule`."""
        return tuple(entries_of(*pair) for pair in zip(self._patterns.preacts, slopes, strict=True))

    def _factor(self, params: Params, residuals: tuple, index: int) -> jax.Array:
        """The values of V of this recurrent member."""
        push = lambda seed: self.structure.cut(params, residuals, seed)[1][index].ravel()  # noqa: E731
        return self._tangents(self._patterns.factors[index], push)

    def _tangents(self, pattern: Pattern, push: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """(colours, rows), what `push` makes of the tangent of each colour."""
        return jnp.stack([push(seed) for seed in jnp.asarray(pattern.seeds, self.structure.dtype)])


# `(params, residuals, rule) -> (state_jacobian, immediate_jacobian per group and dense leaf)`.
Linearise = Callable[[Params, tuple, JacobianRule], tuple[Entries, list[Entries]]]


def linearisation(structure: Structure, sparsity: Sparsity, without_weights: bool = False) -> Linearise:
    """A function that finds a step's Jacobians by their entries.

    Rows that share no column are pulled back together, as one credit; columns that share no row are pushed
    forward together, as one tangent. A matrix with too many colours both ways is found row by row.

    Args:
        structure: of the cell.
        sparsity: its non-zeros.
        without_weights: whether the state Jacobian is to be that through no weight of a group.
    """
    size, groups = structure.state_size, len(structure.groups)
    matrices = [sparsity.direct if without_weights else sparsity.state, *sparsity.immediate]
    # One credit gives rows of all matrices, so that as many as possible share the colours of their rows.
    joint, together = np.zeros((size, 0), bool), []
    rows = Pattern(joint.T, np.zeros(size, int))
    for i in range(int(without_weights), len(matrices)):
        more = np.concatenate([joint, matrices[i]], axis=1)
        if (pattern := find_pattern(more.T)) is not None:
            joint, rows, together = more, pattern, [*together, i]
    apart = {i: find_pattern(m) for i, m in enumerate(matrices) if i not in together}
    columns = {i: pattern for i, pattern in apart.items() if pattern is not None}
    whole = [i for i in apart if i not in columns]

    # The matrices are numbered: the state Jacobian 0, then the groups' from 1, then the dense leaves'.
    def forward(params, residuals, i, seed):
        """The product of matrix i with a tangent."""
        if i == 0:
            return structure.pushforward(params, residuals, seed, without_weights=without_weights)
        if i <= groups:
            preacts = [seed if i == g + 1 else None for g in range(groups)]
            return structure.pushforward(params, residuals, None, preacts)
        leaves = [structure.leaves[leaf.leaf] for leaf in structure.dense]
        pairs = enumerate(leaves, start=groups + 1)
        dense = [seed.reshape(a.shape).astype(a.dtype) if i == n else None for n, a in pairs]
        return structure.pushforward(params, residuals, None, None, dense)

    def linearise(params, residuals, rule):
        out: dict[int, Entries] = {}
        if together:
            pullback = jax.vmap(structure.pullback, in_axes=(None, None, 0))
            seeds = jnp.asarray(rows.seeds, structure.dtype)
            state, preacts, dense = pullback(params, residuals, seeds)
            values = [state, *preacts, *(leaf.reshape(len(state), -1) for leaf in dense)]
            out |= {i: by_rows(values[i], matrices[i], rows.colour) for i in together}
        for i, pattern in columns.items():
            seeds = jnp.asarray(pattern.seeds, structure.dtype)
            values = jax.vmap(lambda seed, i=i: forward(params, residuals, i, seed))(seeds)
            out[i] = Entries(pattern, values)
        if whole:  # what has too many colours is made as a matrix, once for all of it
            state, preacts, dense = rule.jacobians(params, residuals)
            values = [state, *preacts, *dense]
            if without_weights:
                eye = jnp.eye(size, dtype=structure.dtype)
                values[0] = jax.vmap(lambda seed: forward(params, residuals, 0, seed), out_axes=1)(eye)
            out |= {i: by_rows(values[i], matrices[i], np.arange(size)) for i in whole}
        state, *immediate = (out[i] for i in range(len(matrices)))
        return state, immediate

    return linearise
