"""How a method represents the influence of everything before the block: the rule that each paper writes."""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from foretrace._types import Info
from foretrace.structure._jacobian_rule import JacobianRule
from foretrace.structure._jacobians import jacobian_rule
from foretrace.structure._structure import Structure


class NoInfo(NamedTuple):
    """Nothing is random, and nothing is dropped that differs from step to step."""


class Terms(NamedTuple):
    """The matrix left^T @ right: left (R, F), right (R, Z)."""

    left: jax.Array
    right: jax.Array


class Rows(NamedTuple):
    """The matrix sum_r weights_r matrices_r: weights (R,), matrices (R, F, Z)."""

    weights: jax.Array
    matrices: jax.Array


class GroupedGradient(NamedTuple):
    """A gradient in parts: per group a (F, Z) matrix, `Terms` or `Rows`, per dense leaf an array."""

    groups: tuple[Any, ...]
    dense: tuple[jax.Array, ...]


P = TypeVar("P")


class PastRule(ABC, Generic[P]):
    """How a method carries the past of one lane; a past is a pytree of arrays.

    Subclasses define `empty`, `read` and `push`.

    Attributes:
        structure: of the cell.
        is_random: whether `push` uses its key. Making keys for nothing costs small networks a tenth of a
            step.
        needs_no_window: whether, at block 1, every step joins the past at once and gradients are read from
            the past alone: only for methods whose past represents the present step exactly.
        keeps_step_weights: whether a step leaves its weights in the window at block 1 too, as it does in
            longer blocks.
        widens_to_read: whether a read makes numbers as large as a past, which should be of few lanes at a
            time.
    """

    is_random = True
    needs_no_window = False
    keeps_step_weights = False
    widens_to_read = False

    def __init__(self, structure: Structure) -> None:
        self.structure = structure

    @cached_property
    def jacobians(self) -> JacobianRule:
        """The rule for Jacobians of a step as matrices."""
        return jacobian_rule(self.structure)

    @abstractmethod
    def empty(self) -> P:
        """The past of a lane that has none."""

    @abstractmethod
    def read(self, past: P, credit: jax.Array) -> GroupedGradient:
        """The gradient that a credit (S,) at the block's start owes to the past."""

    @abstractmethod
    def push(self, key: jax.Array, past: P, block: Any) -> tuple[P, Info]:
        """The past at the end of a `Block`, from that at its start."""

    def collect(self, past: P, credit: jax.Array) -> Any:
        """The numbers of `read` in an order of the rule's own, to be summed over lanes before `place`."""
        return self.read(past, credit)

    def place(self, collected: Any) -> GroupedGradient:
        """The gradient of what `collect` gives: `read` is the one after the other."""
        return collected

    def info(self, past: P) -> Info:
        """Values to observe in a past, asked only of a rule that needs no window; none by default."""
        return NoInfo()


class PreparedRule(PastRule[P]):
    """A rule whose push has two parts, by what lanes share.

    Products with the weights, which all lanes have in common, are best made for all of them at once; what
    is large in every lane is best touched one lane after the other, where it lies in the cache.
    """

    @abstractmethod
    def prepare(self, key: jax.Array, past: P, block: Any) -> Any:
        """What `finish` needs of a block: a pytree of arrays."""

    @abstractmethod
    def finish(self, key: jax.Array, past: P, prepared: Any) -> tuple[P, Info]:
        """The past at the end of the block; the key is another one."""

    def push(self, key: jax.Array, past: P, block: Any) -> tuple[P, Info]:
        """See `PastRule`."""
        first, second = jax.random.split(key)
        return self.finish(second, past, self.prepare(first, past, block))


def norm(tree: Any) -> jax.Array:
    """Euclidean norm of a pytree; of `Terms`, that of the matrix, which is never formed."""
    parts = jax.tree.leaves(tree, is_leaf=lambda part: isinstance(part, Terms))
    if not parts:
        return jnp.asarray(0.0)
    return jnp.sqrt(jnp.sum(jnp.stack([_square(part) for part in parts])))


def _square(part) -> jax.Array:
    if isinstance(part, Terms):
        square = jnp.sum((part.left @ part.left.T) * (part.right @ part.right.T))
        return jnp.maximum(square, 0)  # rounding may leave a zero below zero
    return jnp.sum(part**2)


def zero_gradient(structure: Structure) -> GroupedGradient:
    """A gradient of zeros."""
    # As matrices: `Terms` of rank 0 would be products with an empty axis.
    groups = tuple(jnp.zeros((g.factor_size, g.preact_size), structure.dtype) for g in structure.groups)
    return GroupedGradient(groups, zero_dense(structure))


def zero_dense(structure: Structure) -> tuple[jax.Array, ...]:
    """A zero for every dense leaf, shaped like it."""
    return tuple(jnp.zeros(structure.leaves[d.leaf].shape, structure.dtype) for d in structure.dense)


def empty_dense(structure: Structure) -> tuple[jax.Array, ...]:
    """The exact influence (S, size) of every dense leaf, without a past."""
    return tuple(jnp.zeros((structure.state_size, d.size), structure.dtype) for d in structure.dense)


def push_dense(jacobian: jax.Array, past: tuple[jax.Array, ...], new: tuple[jax.Array, ...]) -> tuple:
    """Exact influences (S, size) moved by a state Jacobian (S, S), and the new immediate ones added."""
    return tuple(jacobian @ a + b for a, b in zip(past, new, strict=True))


def read_dense(
    structure: Structure, dense: tuple[jax.Array, ...], credit: jax.Array
) -> tuple[jax.Array, ...]:
    """Gradients of the dense leaves from their exact influence."""
    return tuple(
        (credit @ influence).reshape(zero.shape)
        for influence, zero in zip(dense, zero_dense(structure), strict=True)
    )


def flat_rows(a: jax.Array) -> jax.Array:
    """All axes but the last as one."""
    return a.reshape(-1, a.shape[-1])
