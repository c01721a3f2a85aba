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
from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._types import Params
from foretrace._xla import jit_unoptimised
from foretrace.structure._pattern import (
    Pattern,
    entries_of,
    find_pattern,
    picked,
    rows_times,
    times_columns,
)
from foretrace.structure._structure import Structure

COLOURS = 8  # more tangents than this and a dense product is as cheap


class Transport(NamedTuple):
    """Maps rows Q, (N, S) or None for the identity, to Q times each Jacobian of one step.

    In parts, so that a block makes once what it needs at every step, and its large matrices where it wants
    them and not inside its loop.

    Attributes:
        weights: `params -> weights`, what of the parameters `step` reads, as it wants it.
        values: `(params, residuals) -> values`, the values of one step, which are few.
        step: `(weights, values, Q, cut) -> (Q state_jacobian (N, S), slopes, per dense leaf Q
            immediate_jacobian (N, size))`; where the bool `cut`, nothing comes from the state before.
        rights: `(slopes, Q) -> per group Q preact_jacobian (N, Z)`.
        entries: `slopes -> per group (values (n,), their places (n,) in the flattened preact_jacobian)`,
            the places fixed and all different, all else zero; None where they are not known.
    """

    weights: Callable[[Params], Any]
    values: Callable[[Params, tuple], Any]
    step: Callable[[Any, Any, jax.Array | None, jax.Array], tuple[jax.Array, Any, tuple[jax.Array, ...]]]
    rights: Callable[[Any, jax.Array | None], tuple[jax.Array, ...]]
    entries: Callable[[Any], tuple[tuple[jax.Array, np.ndarray], ...]] | None = None

    def jacobians(
        self, params: Params, residuals: tuple
    ) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        """state_jacobian (S, S), per group preact_jacobian (S, Z), per dense leaf (S, size)."""
        values, cut = self.values(params, residuals), jnp.zeros((), bool)
        state, slopes, dense = self.step(self.weights(params), values, None, cut)
        return state, self.rights(slopes, None), dense


@lru_cache(maxsize=64)
def transport(structure: Structure) -> Transport:
    """The structure's `Transport`, from non-zeros where they have fixed places, else row by row."""
    with jax.ensure_compile_time_eval():
        patterns = _patterns(structure)
    return _by_rows(structure) if patterns is None else _by_entries(structure, *patterns)


def _by_rows(structure: Structure) -> Transport:
    pullback = jax.vmap(structure.pullback, in_axes=(None, None, 0))

    def step(params, residuals, rows, cut):
        rows = jnp.eye(structure.state_size, dtype=structure.dtype) if rows is None else rows
        state, preacts, dense = pullback(params, residuals, rows)
        dense = tuple(leaf.reshape(leaf.shape[0], -1) for leaf in dense)
        return jnp.where(cut, 0, state), preacts, dense

    return Transport(
        lambda params: params,
        lambda params, residuals: residuals,
        step,
        lambda preacts, rows: preacts,
    )


def _by_entries(
    structure: Structure,
    direct: Pattern,
    factors: Sequence[Pattern | None],
    preacts: Sequence[Pattern],
    fixed: Sequence[bool],
) -> Transport:
    size, dtype = structure.state_size, structure.dtype
    # Of every group, the members whose factor the state reaches: their rows, sign and place in `factors`.
    members, index = [], 0
    for group in structure.groups:
        starts = itertools.accumulate((m.rows for m in group.members), initial=0)
        members.append([])
        for member, start in zip(group.members, starts, strict=False):
            if member.transport is None:
                continue
            if factors[index] is not None:
                members[-1].append((slice(start, start + member.rows), member.sign, index))
            index += 1

    # The run of state entries that weights read, and every V there.
    columns = [np.flatnonzero((p.rows >= 0).any(axis=0)) for p in factors if p is not None]
    start = min((c[0] for c in columns), default=0)
    stop = max((c[-1] for c in columns), default=-1) + 1
    inputs = [p and p._replace(rows=p.rows[:, start:stop], colour=p.colour[start:stop]) for p in factors]

    def tangents(params, residuals, pattern, wrt, pick):
        """(colours, rows) of what `pick` takes from the outputs of the cut program."""
        seeds = jnp.asarray(pattern.seeds, dtype)
        return jnp.stack([pick(structure.cut(params, residuals, wrt(seed))) for seed in seeds])

    def scales(params, residuals, index):
        """The values of the V of this index."""
        pick = lambda out: out[1][index].ravel()  # noqa: E731
        return tangents(params, residuals, factors[index], lambda seed: (seed, None), pick)

    def weights(params):
        """Per group and member what C picks of W^T, times V where that is the same at every step.

        Picked here and not in `step`: in the loop of a block the compiler reads an array of which it wants
        parts one number at a time.
        """
        anywhere = tuple(jnp.zeros(a.shape, a.dtype) for a in structure.residual_shapes)

        def feed(matrix, index):
            if not fixed[index]:
                return matrix
            return rows_times(inputs[index], scales(params, anywhere, index), matrix)

        return [
            [picked(pattern, feed(sign * matrix[rows].T, i)) for rows, sign, i in found]
            for pattern, matrix, found in zip(preacts, structure.matrices(params), members, strict=True)
        ]

    def values(params, residuals):
        beside = None
        if direct.seeds.size:
            wrt = lambda seed: (seed, None)  # noqa: E731
            beside = tangents(params, residuals, direct, wrt, lambda out: out[0])
        changing = {
            i: scales(params, residuals, i)
            for i, pattern in enumerate(factors)
            if pattern is not None and not fixed[i]
        }
        slopes = []
        for i, pattern in enumerate(preacts):
            wrt = lambda seed, i=i: (None, {i: seed})  # noqa: E731
            slopes.append(tangents(params, residuals, pattern, wrt, lambda out: out[0]))
        return beside, changing, tuple(slopes)

    def step(weights, values, rows, cut):
        beside, changing, slopes = values
        beside, across = jax.tree.map(lambda a: jnp.where(cut, 0, a), (beside, slopes))
        through = jnp.zeros((size, stop - start), dtype)
        for pattern, slope, weight, found in zip(preacts, across, weights, members, strict=True):
            # As C picks it, D z / d hidden: the weights, their columns moved and scaled by V.
            feeds = [
                matrices
                if fixed[index]
                else [rows_times(inputs[index], changing[index], matrix) for matrix in matrices]
                for matrices, (*_, index) in zip(weight, found, strict=True)
            ]
            if feeds:
                fed = [reduce(jnp.add, each) for each in zip(*feeds, strict=True)]
                through = through + times_columns(pattern, slope, fed)

        def widened(a):
            return jnp.pad(a, ((0, 0), (start, size - stop)))

        if rows is not None and stop - start < size:
            moved = widened(rows @ through)
            return moved if beside is None else rows_times(direct, beside, rows) + moved, slopes, ()
        jacobian = widened(through)
        if beside is not None:
            jacobian = times_columns(direct, beside, picked(direct, jnp.eye(size, dtype=dtype))) + jacobian
        return jacobian if rows is None else rows @ jacobian, slopes, ()

    def rights(slopes, rows):
        rows = jnp.eye(size, dtype=dtype) if rows is None else rows
        return tuple(rows_times(*pair, rows) for pair in zip(preacts, slopes, strict=True))

    def entries(slopes):
        return tuple(entries_of(*pair) for pair in zip(preacts, slopes, strict=True))

    return Transport(weights, values, step, rights, entries)


def _patterns(structure: Structure):
    """Patterns of E, of every V and of every C, and for every V whether it is the same at every step.

    None where some z feeds another or too many are dense. A not-a-number at one input turns up at every
    output that depends on it, zero times it included.
    """
    if not structure.is_elementwise:
        return None

    @jit_unoptimised
    def probe(params, hidden, x):
        """Where a tangent of the state, and of every z, makes outputs nan; if residuals make a V so."""
        _, residuals = structure.forward(params, hidden, x)

        def reach(size, wrt):
            probes = jnp.where(jnp.eye(size, dtype=bool), jnp.nan, jnp.zeros((), structure.dtype))
            tangents = lambda probe: structure.cut(params, residuals, wrt(probe), every_branch=True)  # noqa: E731
            return jax.tree.map(jnp.isnan, jax.vmap(tangents)(probes))

        state = reach(structure.state_size, lambda probe: (probe, None))
        groups = [
            reach(group.preact_size, lambda probe, i=i: (None, {i: probe}))
            for i, group in enumerate(structure.groups)
        ]
        if not all(jnp.issubdtype(a.dtype, jnp.floating) for a in residuals):
            return state, groups, [jnp.isnan(jnp.nan)] * len(state[1])
        unknown = tuple(jnp.full_like(a, jnp.nan) for a in residuals)
        _, moved, _ = structure.cut(params, unknown, (jnp.ones_like(hidden), None))
        changing = [a is None or ~jnp.all(jnp.isfinite(a)) for a in moved]
        return state, groups, changing

    def none(places):
        return places is None or not places.any()

    place = lambda a: np.asarray(a).reshape(len(a), -1).T  # noqa: E731
    state, groups, changing = probe(*structure.point)
    (output, factors, rests), *others = (jax.tree.map(place, found) for found in (state, *groups))
    if not all(none(rest) for rest in rests):
        return None
    if not all(none(a) for _, *found in others for a in (*found[0], *found[1])):
        return None
    found = [
        find_pattern(output),
        [None if none(a) else find_pattern(a) for a in factors],
        [find_pattern(out) for out, _, _ in others],
        [not a for a in changing],
    ]
    flat = [found[0], *(p for p in found[1] if p is not None), *found[2]]
    return found if all(len(p.seeds) <= COLOURS for p in flat) else None
