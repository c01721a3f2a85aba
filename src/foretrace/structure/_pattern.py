"""Matrices whose few non-zeros have places known beforehand, and products with them.

The columns of such a matrix come in colours that share no row, so that its values are (colours, rows): the
product with the sum of a colour's unit vectors gives them (Curtis, Powell, Reid 1974).
"""

import itertools
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_RUNS = 16  # so many slices are faster than a gather


class Pattern(NamedTuple):
    """Places of the non-zeros of a matrix, and its columns in colours that share no row.

    Attributes:
        seeds: (colours, columns), the 0/1 tangent of each colour.
        columns: (colours, rows), the column that a colour has in a row, -1 for none.
        rows: (entries, columns), the rows that a column has, -1 for none.
        colour: (columns,).
    """

    seeds: np.ndarray
    columns: np.ndarray
    rows: np.ndarray
    colour: np.ndarray


def find_pattern(places: np.ndarray) -> Pattern:
    """Colours the columns of a boolean matrix greedily."""
    rows, columns = places.shape
    used = np.zeros((0, rows), bool)
    colour = np.zeros(columns, int)
    for j in range(columns) if places.any() else ():
        free = ~(used & places[:, j]).any(axis=1)
        if not free.any():
            used, free = np.vstack([used, np.zeros((1, rows), bool)]), np.append(free, True)
        colour[j] = np.argmax(free)
        used[colour[j]] |= places[:, j]
    count = len(used)
    seeds = np.stack([colour == i for i in range(count)]) if count else np.zeros((0, columns))
    owners = np.full((count, rows), -1)
    for i, j in np.argwhere(places):
        owners[colour[j], i] = j
    depth = int(places.sum(axis=0).max(initial=0))
    entries = np.full((depth, columns), -1)
    for j in range(columns):
        (where,) = np.nonzero(places[:, j])
        entries[: len(where), j] = where
    return Pattern(seeds, owners, entries, colour)


def entries_of(pattern: Pattern, values: jax.Array) -> tuple[jax.Array, np.ndarray]:
    """The entries of the matrix with this pattern and these values, and their places."""
    valid = pattern.rows >= 0
    rows, columns = pattern.rows[valid], np.nonzero(valid)[1]
    index = pattern.colour[columns] * values.shape[1] + rows
    return take(values.reshape(-1), index, 0), rows * valid.shape[1] + columns


def rows_times(pattern: Pattern, values: jax.Array, rows: jax.Array) -> jax.Array:
    """The product rows @ M for the matrix M with this pattern and these values."""
    entries, size = pattern.rows, pattern.rows.shape[1]
    index = np.where(entries >= 0, pattern.colour * values.shape[1] + entries, -1)
    weights = [take(values.reshape(-1), places, 0) for places in index]
    runs = _runs(entries)
    if runs is None:
        taken = (take(rows, entry, 1) for entry in entries)
        return reduce(jnp.add, (a * weight[None] for a, weight in zip(taken, weights, strict=True)))
    length = runs[0][1]
    alike = all(j - i == length for i, j in runs)
    if alike and all(len({entry[i] for i, _ in runs}) == 1 for entry in entries):
        # Gates: the same rows once per gate, which a broadcast repeats without a copy.
        pairs = zip(entries, weights, strict=True)
        gates = (rows[:, None, e[0] : e[0] + length] * weight.reshape(1, -1, length) for e, weight in pairs)
        return reduce(jnp.add, gates).reshape(len(rows), size)

    def part(i, j):
        pairs = zip(entries, weights, strict=True)
        found = [rows[:, e[i] : e[i] + j - i] * weight[None, i:j] for e, weight in pairs if e[i] >= 0]
        return reduce(jnp.add, found) if found else jnp.zeros((len(rows), j - i), rows.dtype)

    parts = [part(i, j) for i, j in runs]
    return jnp.stack(parts, 1).reshape(len(rows), size) if alike else jnp.concatenate(parts, 1)


def picked(pattern: Pattern, columns: jax.Array) -> list[jax.Array]:
    """Per colour of a matrix M with this pattern, the rows of `columns` that M takes."""
    return [take(columns, place, 0) for place in pattern.columns]


def times_columns(pattern: Pattern, values: jax.Array, picked: Sequence[jax.Array]) -> jax.Array:
    """The product M @ columns, of what M picks of the columns."""
    out = jnp.zeros((), values.dtype)
    for place, value, rows in zip(pattern.columns, values, picked, strict=True):
        valid = place >= 0
        value = value if valid.all() else jnp.where(valid, value, 0)
        out = out + rows * value[:, None]
    return out


def _runs(places: np.ndarray) -> list[tuple[int, int]] | None:
    """Where all rows of `places` run on or stay below zero, from and to; None where these are many."""
    on = (np.diff(places) == 1) & (places[:, :-1] >= 0) | (places[:, 1:] < 0) & (places[:, :-1] < 0)
    cuts = [0, *(np.flatnonzero(~on.all(axis=0)) + 1).tolist(), places.shape[1]]
    return list(itertools.pairwise(cuts)) if len(cuts) <= _RUNS else None


def take(a: jax.Array, index: np.ndarray, axis: int) -> jax.Array:
    """Entries of `a` along `axis`, zeros where the index is negative.

    As slices where the index runs on: a gather is slow on every device.
    """
    if not len(index):
        return jax.lax.slice_in_dim(a, 0, 0, axis=axis)
    runs = _runs(index[None])
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
