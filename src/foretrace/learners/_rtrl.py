"""Exact real-time recurrent learning."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace._checks import check_positive_int
from foretrace._types import Cell, Learner
from foretrace.learners._catalogue._requirements import ANY_CELL
from foretrace.learners._catalogue._spec import CellSizes, Operations, Spec
from foretrace.learners._engine import learner_of
from foretrace.learners._engine._block import Block
from foretrace.learners._engine._past import (
    GroupedGradient,
    NoInfo,
    PastRule,
    empty_dense,
    push_dense,
    read_dense,
)
from foretrace.learners._engine._sparse import SparseRule
from foretrace.structure._sparsity import find_sparsity, is_sparse_cheaper
from foretrace.structure._structure import Structure


class RTRLPast(NamedTuple):
    """Exact influence: per group (S, F, Z), per dense leaf (S, size)."""

    groups: tuple[jax.Array, ...]
    dense: tuple[jax.Array, ...]


def rtrl(cell: Cell, *, block: int = 1, past_dtype: Any = None) -> Learner:
    """RTRL: the exact influence matrix, carried forward.

        influence <- state_jacobian influence + immediate_jacobian                       (1)
        gradient = credit . influence                                                    (2)

    A block of k steps is one transition of (1), with Q_i the product of the state Jacobians after step i:

        influence <- Q_0 influence + sum_i f_i (x) Q_i D_i                               (3)

    Where the recurrence connects few entries of the state, such as the units of `diagonal` and `elstm` with
    none but themselves, most of the influence matrix is zero at all times. This is found from the cell's
    program, and then only the rest is stored and moved, step by step.

    Exactness: exact for fixed parameters, for every cell and every block.

    Cost: memory S P per lane; time per step S^3 + S^2 P / block. With a block of about S steps this is
    Schmidhuber's algorithm of 1992: the exact gradient in O(S^3) per step on average. For recurrences
    within groups of K entries, memory K P and time K^2 P per step, whatever the block.

    Args:
        cell: the dynamics, any differentiable cell.
        block: steps per update of the influence matrix; 1 is the classic algorithm.
        past_dtype: `jnp.bfloat16` stores the past in half the bytes, rounded at random; no longer exact,
            but unbiased.

    Returns:
        A learner; `info` is empty.

    Raises:
        TypeError, ValueError: `block` is not an int >= 1, or `past_dtype` not bfloat16.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.rnn(hidden=8, inputs=3)
        >>> learner = ft.rtrl(cell)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params, lanes=2)
        >>> state, info = learner.step(params, state, jax.numpy.ones((2, 3)))
        >>> state.hidden.shape
        (2, 8)

    Source: Williams & Zipser, Neural Computation 1(2), 1989; the block: Schmidhuber, Neural
    Computation 4(2), 1992; recurrences within units: Mozer, Complex Systems 3, 1989.
    """
    check_positive_int("block", block, "1 is the classic algorithm")

    return learner_of(cell, _rule, block, past_dtype=past_dtype)


def _rule(structure: Structure) -> PastRule:
    sparsity = find_sparsity(structure)
    if is_sparse_cheaper(structure, sparsity):
        return SparseRule(structure)
    return _DenseRule(structure)


class _DenseRule(PastRule[RTRLPast]):
    """Keeps every entry of the influence matrix."""

    is_random = False
    needs_no_window = True

    def empty(self) -> RTRLPast:
        structure = self.structure
        shapes = [(structure.state_size, g.factor_size, g.preact_size) for g in structure.groups]
        groups = tuple(jnp.zeros(shape, structure.dtype) for shape in shapes)
        return RTRLPast(groups, empty_dense(structure))

    def read(self, past: RTRLPast, credit: jax.Array) -> GroupedGradient:
        """Equation (2)."""
        groups = tuple(jnp.tensordot(credit, influence, 1) for influence in past.groups)
        return GroupedGradient(groups, read_dense(self.structure, past.dense, credit))

    def push(self, key: jax.Array, past: RTRLPast, block: Block) -> tuple[RTRLPast, NoInfo]:
        """Equation (3); (1) where the block is one step."""
        jacobian, rights, dense = block.matrices()
        rights = (right.dense for right in rights)
        groups = tuple(
            jnp.tensordot(jacobian, influence, 1) + jnp.swapaxes(jnp.tensordot(f.T, right, 1), 0, 1)
            for influence, f, right in zip(past.groups, block.factors(), rights, strict=True)
        )
        return RTRLPast(groups, push_dense(jacobian, past.dense, dense)), NoInfo()


def _operations(sizes: CellSizes, number: int, block: int) -> Operations:
    structure = sizes.structure
    if is_sparse_cheaper(structure, find_sparsity(structure)):
        return sizes.window(block) | sizes.sparse_influence(sizes.column_sets(None))
    influence = sizes.state * (sizes.weights + sizes.dense)
    return sizes.window(block) | {
        "jacobians": sizes.jacobians(block),
        "move": 2 * sizes.state * influence / block,
        "read": 2 * influence,
        "mix": 2 * sizes.state * sizes.weights,
    }


SPEC = Spec(
    factory=rtrl,
    call="rtrl(cell)",
    influence="all of it",
    exact=True,
    unbiased=True,
    memory="S P, or K P",
    time="S^2 P, or K^2 P",
    requires=ANY_CELL,
    source="Williams & Zipser 1989",
    papers=("williams1989learning", "schmidhuber1992fixed"),
    operations=_operations,
    order=0,
    takes_past_dtype=True,
)
