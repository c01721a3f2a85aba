"""The past as a sum of R Kronecker products per group, whatever way it is reduced to R products."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace._checks import UserError
from foretrace.learners._engine._past import Block, Past, Sensitivity, Terms, empty_dense, read_dense
from foretrace.learners._engine._right_factors import Rights
from foretrace.structure._structure import Structure

DENSE_PER_STATE = 4  # a leaf this many times as large as the state is still cheap to track exactly


class Factors(NamedTuple):
    """sum_r left_r (x) right_r: left (R, F), right (S, Z, R), or (S, Z) of a single product.

    With the rank last, moving, reading, comparing and mixing need no transpose. An axis of one would be
    copied at every step.
    """

    left: jax.Array
    right: jax.Array


class New(NamedTuple):
    """What a block's k steps add, sum_i left_i (x) right_i: left (k, F), right k matrices (S, Z)."""

    left: jax.Array
    right: Rights


class FactoredPast(NamedTuple):
    """Per group its `Factors`; per dense leaf its exact influence (S, size)."""

    groups: tuple[Factors, ...]
    dense: tuple[jax.Array, ...]


def factored_past(
    structure: Structure,
    name: str,
    rank: int,
    compress: Callable[[jax.Array, list[Factors], list[New]], tuple[list[Factors], Any]],
) -> Past:
    """A past of `rank` products per group, which a block's new ones join and `compress` brings back.

    Args:
        structure: of the cell.
        name: the learner's, for messages.
        rank: number of products, R.
        compress: `(key, old, new) -> (factors, info)`, each a list over groups but the info. `old` is the
            past moved to the block's end, with its right factors as (S Z, R). The factors are like `old`.

    Raises:
        ValueError: a leaf neither factorises nor is small enough to be tracked exactly.
    """
    size = structure.state_size
    check_factorises(structure, name)

    def empty():
        groups = tuple(
            Factors(
                jnp.zeros((rank, group.factor_size), structure.dtype),
                jnp.zeros((size, group.preact_size, rank)[: 2 if rank == 1 else 3], structure.dtype),
            )
            for group in structure.groups
        )
        return FactoredPast(groups, empty_dense(structure))

    def read(past, credit):
        groups = tuple(
            Terms(g.left, (credit @ g.right.reshape(size, -1)).reshape(-1, rank).T) for g in past.groups
        )
        return Sensitivity(groups, read_dense(structure, past.dense, credit))

    def push(key, past, block: Block):
        jacobian, rights, dense = block.matrices()
        old = [
            Factors(
                jnp.where(block.alive, group.left, 0),
                (jacobian @ group.right.reshape(size, -1)).reshape(-1, rank),
            )
            for group in past.groups
        ]
        new = [New(*pair) for pair in zip(block.factors(), rights, strict=True)]
        factors, info = compress(key, old, new)
        groups = tuple(
            Factors(found.left, found.right.reshape(group.right.shape))
            for found, group in zip(factors, past.groups, strict=True)
        )
        dense = tuple(jacobian @ a + b for a, b in zip(past.dense, dense, strict=True))
        return FactoredPast(groups, dense), info

    return Past(empty, read, push)


def check_factorises(structure: Structure, name: str) -> None:
    """Raises ValueError where a leaf neither factorises nor is small enough to be tracked exactly."""
    size = structure.state_size
    for leaf in structure.dense:
        if leaf.size > DENSE_PER_STATE * size:
            raise UserError(
                f"{name} needs every weight of the cell to factorise; got {leaf.path!r}, of which "
                f"{leaf.reason}; multiply it once with one vector in cell.step, or use rtrl(cell) or "
                "uoro(cell)."
            )


def keys_for(key: jax.Array, groups: Sequence) -> jax.Array:
    """One key per group; a single group's is `key` itself, since splitting costs time."""
    return key[None] if len(groups) == 1 else jax.random.split(key, len(groups))
