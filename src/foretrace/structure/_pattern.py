"""Matrices whose few non-zeros have places known beforehand, and products with them.

The columns of such a matrix come in colours that share no row. So its product with the sum of a colour's
unit vectors gives all entries of these columns, and the whole matrix has values (colours, rows) (Curtis,
Powell, Reid 1974).
"""

import dataclasses
import itertools
from collections.abc import Sequence
from functools import cached_property, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# With more colours than this a dense product is as cheap: every colour costs a pass through the cell, and
# an elementwise pass over (S, S) numbers in every product. The papers' cells need 1 to 4.
COLOURS = 8
# The most slices in place of one gather, which XLA:CPU reads one number at a time; more would swell the
# program. Layouts of gates and of real and imaginary parts need 1 to 8.
_RUNS = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Pattern:
    """Places of the non-zeros of a matrix, and its columns in colours that share no row.

    Attributes:
        places: (rows, columns) bool.
        colour: (columns,) int.
    """

    places: np.ndarray
    colour: np.ndarray

    @cached_property
    def seeds(self) -> np.ndarray:
        """(colours, columns), the 0/1 tangent of each colour."""
        return self.colour[None] == np.arange(self.colour.max(initial=0) + 1)[:, None]

    @cached_property
    def columns(self) -> np.ndarray:
        """(colours, rows), the column that a colour has in a row, -1 for none."""
        owners = np.full((len(self.seeds), len(self.places)), -1)
        row, column = np.nonzero(self.places)
        owners[self.colour[column], row] = column
        return owners

    @cached_property
    def rows(self) -> np.ndarray:
        """(entries, columns), the rows that a column has, -1 where it has fewer than others."""
        return as_columns([np.flatnonzero(column) for column in self.places.T])


def find_pattern(places: np.ndarray) -> Pattern | None:
    """Colours the columns of a boolean matrix greedily; None where that takes more than `COLOURS`."""
    # A row's columns all differ in colour, so that the fullest row is a bound, and most often the answer.
    if places.sum(axis=1).max(initial=0) > COLOURS:
        return None
    colour, used = np.zeros(places.shape[1], int), np.zeros((COLOURS, len(places)), bool)
    for j, column in enumerate(places.T):
        free = ~(used & column).any(axis=1)
        if not free.any():
            return None
        colour[j] = np.argmax(free)
        used[colour[j]] |= column
    return Pattern(places, colour)


class Entries(NamedTuple):
    """A matrix by its values.

    Attributes:
        pattern: of the matrix, or of its transpose.
        values: (colours, rows) of the pattern.
        transposed: whether the pattern is that of the transpose.
    """

    pattern: Pattern
    values: jax.Array
    transposed: bool = False

    def at(self, i: np.ndarray, j: np.ndarray) -> jax.Array:
        """Entries at rows i and columns j, which broadcast; zero where one of them is -1."""
        i, j = np.broadcast_arrays(*((j, i) if self.transposed else (i, j)))
        valid = (i >= 0) & (j >= 0)
        index = self.pattern.colour[j] * self.values.shape[1] + i
        entries = gather(self.values.reshape(-1), np.where(valid, index, -1).ravel(), 0).reshape(i.shape)
        # A colour's row may belong to another column there, whose number must not pass for this one.
        valid &= self.pattern.places[i, j]
        return entries if valid.all() else jnp.where(valid, entries, 0)


def by_rows(values: jax.Array, places: np.ndarray, colour: np.ndarray) -> Entries:
    """The matrix with these places whose rows of one colour are added up, values (colours, columns)."""
    return Entries(Pattern(places.T, colour), values, transposed=True)


def entries_of(pattern: Pattern, values: jax.Array) -> tuple[jax.Array, np.ndarray]:
    """The entries of the matrix with this pattern and these values, and their places."""
    valid = pattern.rows >= 0
    rows, columns = pattern.rows[valid], np.nonzero(valid)[1]
    index = pattern.colour[columns] * values.shape[1] + rows
    return gather(values.reshape(-1), index, 0), rows * valid.shape[1] + columns


def rows_times(pattern: Pattern, values: jax.Array, rows: jax.Array) -> jax.Array:
    """The product rows @ M for the matrix M with this pattern and these values."""
    entries, size = pattern.rows, pattern.rows.shape[1]
    index = np.where(entries >= 0, pattern.colour * values.shape[1] + entries, -1)
    weights = [gather(values.reshape(-1), places, 0) for places in index]
    runs = _contiguous_runs(entries)
    if runs is None:  # scattered places: one gather per entry of a column
        parts = (gather(rows, entry, 1) for entry in entries)
        return reduce(jnp.add, (a * weight[None] for a, weight in zip(parts, weights, strict=True)))
    length = runs[0][1]
    alike = all(j - i == length for i, j in runs)
    if alike and all(len({entry[i] for i, _ in runs}) == 1 for entry in entries):
        # Gates: the same rows once per gate, which a broadcast repeats without a copy.
        pairs = zip(entries, weights, strict=True)
        gates = (rows[:, None, e[0] : e[0] + length] * weight.reshape(1, -1, length) for e, weight in pairs)
        return reduce(jnp.add, gates).reshape(len(rows), size)

    def part(i, j):
        pairs = zip(entries, weights, strict=True)
        terms = [rows[:, e[i] : e[i] + j - i] * weight[None, i:j] for e, weight in pairs if e[i] >= 0]
        return reduce(jnp.add, terms) if terms else jnp.zeros((len(rows), j - i), rows.dtype)

    parts = [part(i, j) for i, j in runs]
    return jnp.stack(parts, 1).reshape(len(rows), size) if alike else jnp.concatenate(parts, 1)


def gathered_rows(pattern: Pattern, columns: jax.Array) -> list[jax.Array]:
    """Per colour of a matrix M with this pattern, the rows of `columns` that M multiplies."""
    return [gather(columns, place, 0) for place in pattern.columns]


def times_columns(pattern: Pattern, values: jax.Array, rows: Sequence[jax.Array]) -> jax.Array:
    """The product M @ columns, from the `gathered_rows` of the columns."""
    out = jnp.zeros((), values.dtype)
    for place, value, row in zip(pattern.columns, values, rows, strict=True):
        valid = place >= 0
        value = value if valid.all() else jnp.where(valid, value, 0)
        out = out + row * value[:, None]
    return out


def gather(a: jax.Array, index: np.ndarray, axis: int) -> jax.Array:
    """Entries of `a` along `axis`, zeros where the index is negative.

    As slices where the index runs on: a gather is slow on every device.
    """
    if not len(index):
        return jax.lax.slice_in_dim(a, 0, 0, axis=axis)
    runs = _contiguous_runs(index[None])
    if runs is None:
        out, present = jnp.take(a, np.maximum(index, 0), axis=axis), index >= 0
        if present.all():
            return out
        return jnp.where(np.expand_dims(present, tuple(i for i in range(a.ndim) if i != axis)), out, 0)

    def part(i, j):
        if index[i] >= 0:
            return jax.lax.slice_in_dim(a, int(index[i]), int(index[i]) + j - i, axis=axis)
        return jnp.zeros((*a.shape[:axis], j - i, *a.shape[axis + 1 :]), a.dtype)

    return jnp.concatenate([part(i, j) for i, j in runs], axis=axis)


def as_columns(lists: Sequence[np.ndarray]) -> np.ndarray:
    """Lists of indices as the columns of a table, -1 where one is shorter than the longest."""
    out = np.full((max(map(len, lists), default=0), len(lists)), -1)
    for i, indices in enumerate(lists):
        out[: len(indices), i] = indices
    return out


def _contiguous_runs(places: np.ndarray) -> list[tuple[int, int]] | None:
    """Column ranges in which every row of `places` is consecutive or absent (-1); None if many."""
    steps, absent = np.diff(places) == 1, places < 0
    on = steps & ~absent[:, :-1] | absent[:, 1:] & absent[:, :-1]
    cuts = [0, *(np.flatnonzero(~on.all(axis=0)) + 1).tolist(), places.shape[1]]
    return list(itertools.pairwise(cuts)) if len(cuts) <= _RUNS else None
