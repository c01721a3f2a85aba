"""Jacobians of a cell's step as matrices, at the price of their non-zeros where these have fixed places.

In the papers' cells z acts elementwise on the state. With C_g the Jacobian of hidden' at the pre-activation
z_g, E its Jacobian at hidden beside the z, and V_m that of the m-th input factor, all sparse, and W_m the
weights of that factor,

    preact_jacobian = C_g,    state_jacobian = E + sum_g C_g sum_m W_m^T V_m .

The places of the non-zeros are found once; their values come from a few tangents. An LSTM's weights read
half of its state: the columns of V_m outside of that half are zero, and a block multiplies by none of them.
Any other cell gets its Jacobians row by row.
"""

import itertools
from collections.abc import Callable
from functools import lru_cache, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._types import Params
from foretrace.structure._jacobian_rule import JacobianRule, RowByRow
from foretrace.structure._pattern import (
    Pattern,
    entries_of,
    find_pattern,
    gathered_rows,
    rows_times,
    times_columns,
)
from foretrace.structure._sparsity import find_cut_sparsity
from foretrace.structure._structure import Structure


@lru_cache(maxsize=64)  # as many as there are structures
def jacobian_rule(structure: Structure) -> JacobianRule:
    """The rule from non-zeros where these have fixed places, else row by row."""
    patterns = find_patterns(structure)
    return RowByRow(structure) if patterns is None else FromEntries(structure, patterns)


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
