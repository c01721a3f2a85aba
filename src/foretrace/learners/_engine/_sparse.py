"""The past as those entries of the influence matrix that parameters reach within so many steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._checks import UserError
from foretrace._types import Info
from foretrace.learners._engine._factored import DENSE_PER_STATE
from foretrace.learners._engine._past import Block, Past, Sensitivity
from foretrace.structure._jacobians import linearisation
from foretrace.structure._pattern import Entries, gather
from foretrace.structure._sparsity import ColumnSets, Sparsity, find_sparsity, reachable, sets_within
from foretrace.structure._structure import Structure

_SMALL = 4  # this many rows are multiplied one by one, more in a matrix product


class SparsePast(NamedTuple):
    """Per group and dense leaf (K, C, F, G): K rows of the influence for C columns alike, in G sets."""

    parts: tuple[jax.Array, ...]


def sparse_past(
    structure: Structure,
    reach: Sparsity,
    info: Info,
    *,
    steps: int | None = None,
    direct: bool = False,
) -> Past:
    """A past of the entries that are reached within `steps` steps, or ever; the others are held at zero.

        influence <- mask * (state_jacobian influence + immediate_jacobian)

    Args:
        structure: of the cell.
        reach: its non-zeros.
        info: what the learner tells of a push, empty.
        steps: steps within which an entry must be reached; None for any number, which is exact.
        direct: whether the state Jacobian is only that through no weight of a group.
    """
    sets = sets_within(structure, reach, steps, direct)
    linearise = linearisation(structure, reach, direct)

    def empty():
        return SparsePast(tuple(jnp.zeros(part.shape, structure.dtype) for part in sets))

    def push(key, past, block: Block):
        def step(past, params, residuals, transport, each):
            state, immediate = linearise(params, residuals, transport)
            return SparsePast(advance(structure, sets, past.parts, residuals, state, immediate)), None

        return block.fold(step, past)[0], info

    def read(past, credit):
        pairs = zip(sets, past.parts, strict=True)
        return sensitivity(structure, sets, [arriving(part, old, credit) for part, old in pairs])

    return Past(empty, read, push, draws=False)


def local_past(structure: Structure, name: str, info: Info, *, alone: bool) -> Past:
    """The `sparse_past` of every unit for itself: no credit passes from unit to unit through weights.

    A unit is the entries of the state that are connected without a weight of a group.

    Args:
        structure: of the cell.
        name: the learner's, for messages.
        info: what the learner tells of a push, empty.
        alone: whether a unit must be a single entry.

    Raises:
        ValueError: the cell has no such units, or a parameter acts on several at once.
    """
    reach = find_sparsity(structure)
    units = reachable(np.eye(structure.state_size, dtype=bool), reach.direct | reach.direct.T, None)
    check_local(structure, name, reach, units, alone=alone)
    return sparse_past(structure, reach, info, direct=True)._replace(at_once=True)


def check_local(
    structure: Structure, name: str, reach: Sparsity, units: np.ndarray, *, alone: bool = False
) -> None:
    """Raises ValueError unless every parameter acts on one of the units, (S, S) bool, within a step."""
    large = [leaf.path for leaf in structure.dense if leaf.size > DENSE_PER_STATE * structure.state_size]
    if large:
        raise UserError(
            f"{name} needs every matrix of the cell to factorise; got {large[0]!r}, which does not; "
            "multiply it once with one vector in cell.step, or use snap(cell, order=1)."
        )
    if alone and (units.sum(axis=0) > 1).any():
        raise UserError(
            f"{name} needs units of one number, that hear nothing but themselves beside the weights; got "
            f"units of {units.sum(axis=0).max()}; use eprop(cell)."
        )
    paths = [group.members[0].path for group in structure.groups] + [leaf.path for leaf in structure.dense]
    for path, places in zip(paths, reach.immediate, strict=True):
        first = places.argmax(axis=0)  # all that a column reaches must be in the unit of its first row
        if (places & ~units[:, first]).any():
            raise UserError(
                f"{name} needs every parameter to act on one unit within a step; got {path!r}, which acts "
                "on several; use snap(cell, order=1)."
            )


def advance(
    structure: Structure,
    sets: list[ColumnSets],
    parts: tuple,
    residuals: tuple,
    state: Entries,
    immediate: list,
) -> tuple[jax.Array, ...]:
    """One step of the entries of every group and dense leaf, (K, C, F, G)."""
    factors = (*structure.factors(residuals), *(jnp.ones(1, structure.dtype) for _ in structure.dense))
    out = []
    for part, old, jacobian, factor in zip(sets, parts, immediate, factors, strict=True):
        kept = state.at(part.rows[:, None], part.rows[None])
        new = jacobian.at(part.rows[:, None], part.columns[None])
        out.append(_product(kept, old) + new[:, :, None] * factor[None, None, :, None])
    return tuple(out)


def arriving(part: ColumnSets, old: jax.Array, credit: jax.Array) -> jax.Array:
    """Credit (S,) times the entries of one group or dense leaf, (C, F, G)."""
    rows = part.rows.ravel()
    return _product(gather(credit, rows, 0).reshape(1, *part.rows.shape), old)[0]


def sensitivity(structure: Structure, sets: list[ColumnSets], found: list[jax.Array]) -> Sensitivity:
    """What was found for the columns of every set, (C, F, G), in the places of the parameters."""
    out = []
    for part, values in zip(sets, found, strict=True):
        columns = part.columns.ravel()
        if not columns.size:  # nothing of it reaches the state
            out.append(jnp.zeros((part.width, part.total), structure.dtype))
            continue
        if len(values) <= _SMALL:
            values = jnp.concatenate(list(values), axis=1)
        else:
            values = values.swapaxes(0, 1).reshape(part.width, -1)
        place = np.full(part.total, -1)
        place[columns[columns >= 0]] = np.flatnonzero(columns >= 0)
        out.append(gather(values, place, 1))
    groups, dense = out[: len(structure.groups)], out[len(structure.groups) :]
    shapes = (structure.leaves[leaf.leaf].shape for leaf in structure.dense)
    return Sensitivity(tuple(groups), tuple(a.reshape(s) for a, s in zip(dense, shapes, strict=True)))


def _product(left: jax.Array, right: jax.Array) -> jax.Array:
    """Left (I, K, G) times right (K, C, F, G), for every set."""
    if 0 < len(right) <= _SMALL:  # a sum over an axis of two entries would be many times slower
        parts = [left[:, k, None, None] * right[None, k] for k in range(len(right))]
        return sum(parts[1:], start=parts[0])
    return jnp.einsum("ikg,kcfg->icfg", left, right)
