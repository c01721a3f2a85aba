"""The past as a sum of R Kronecker products per group, whatever way it is reduced to R products."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace.learners._catalogue._spec import CellSizes
from foretrace.learners._engine._block import Steps
from foretrace.learners._engine._past import (
    GroupedGradient,
    PastRule,
    Terms,
    empty_dense,
    push_dense,
    read_dense,
)
from foretrace.learners._engine._right_factors import RightFactors
from foretrace.structure._structure import Structure


class Factors(NamedTuple):
    """sum_r left_r (x) right_r: left (R, F), right (S, Z, R), or (S, Z) of a single product.

    With the rank last, moving, reading, comparing and mixing need no transpose. An axis of one would be
    copied at every step.
    """

    left: jax.Array
    right: jax.Array


class NewTerms(NamedTuple):
    """The products of a block's k steps, sum_i left_i (x) right_i: left (k, F), right k matrices (S, Z)."""

    left: jax.Array
    right: RightFactors


class KroneckerSum(NamedTuple):
    """Per group its `Factors`; per dense leaf its exact influence (S, size)."""

    groups: tuple[Factors, ...]
    dense: tuple[jax.Array, ...]


class KroneckerSumRule(PastRule[KroneckerSum]):
    """Carries `rank` products per group; subclasses say how rank + k products are reduced to `rank`."""

    def __init__(self, structure: Structure, rank: int) -> None:
        super().__init__(structure)
        self.rank = rank

    @abstractmethod
    def reduce(self, key: jax.Array, old: list[Factors], new: list[NewTerms]) -> tuple[list[Factors], Any]:
        """Factors of `rank` products per group, shaped like `old`, and the info of the reduction.

        Args:
            key: PRNG key.
            old: per group the past moved to the block's end, its right factors as (S, Z, R).
            new: per group the products of the block's steps.
        """

    def empty(self) -> KroneckerSum:
        """See `PastRule`."""
        structure, rank = self.structure, self.rank
        groups = tuple(
            Factors(
                jnp.zeros((rank, group.factor_size), structure.dtype),
                jnp.zeros(
                    (structure.state_size, group.preact_size, rank)[: 2 if rank == 1 else 3],
                    structure.dtype,
                ),
            )
            for group in structure.groups
        )
        return KroneckerSum(groups, empty_dense(structure))

    def read(self, past: KroneckerSum, credit: jax.Array) -> GroupedGradient:
        """See `PastRule`."""
        size, rank = self.structure.state_size, self.rank
        # One matrix product for all R, in which the right factors are read once.
        groups = tuple(
            Terms(g.left, (credit @ g.right.reshape(size, -1)).reshape(-1, rank).T) for g in past.groups
        )
        return GroupedGradient(groups, read_dense(self.structure, past.dense, credit))

    def push(self, key: jax.Array, past: KroneckerSum, block: Steps) -> tuple[KroneckerSum, Any]:
        """See `PastRule`."""
        size, rank = self.structure.state_size, self.rank
        jacobian, rights, dense = block.matrices()
        # The left factors are the small ones: to clear them clears the products without a pass through all.
        old = [
            Factors(
                jnp.where(block.past_survives, group.left, 0),
                jnp.tensordot(jacobian, group.right, 1).reshape(size, -1, rank),
            )
            for group in past.groups
        ]
        new = [NewTerms(*pair) for pair in zip(block.factors(), rights, strict=True)]
        factors, info = self.reduce(key, old, new)
        groups = tuple(
            Factors(reduced.left, reduced.right.reshape(group.right.shape))
            for reduced, group in zip(factors, past.groups, strict=True)
        )
        return KroneckerSum(groups, push_dense(jacobian, past.dense, dense)), info


def keys_for(key: jax.Array, groups: Sequence) -> jax.Array:
    """One key per group; a single group's is `key` itself, since splitting costs time."""
    return key[None] if len(groups) == 1 else jax.random.split(key, len(groups))


def new_products(sizes: CellSizes, block: int) -> int:
    """Products of full size that a block adds; the entries of a single sparse step hardly count."""
    return 0 if block == 1 and sizes.is_elementwise else block
