"""Exact real-time recurrent learning."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from foretrace._checks import check_count
from foretrace._types import Cell, Learner
from foretrace.learners._engine._past import Past, Sensitivity, empty_dense, read_dense
from foretrace.learners._engine._sparse import sparse_past
from foretrace.learners._engine._window import engine
from foretrace.structure._sparsity import find_sparsity, is_sparse_cheaper
from foretrace.structure._structure import Structure


class RTRLInfo(NamedTuple):
    """Nothing is random or dropped, so there is nothing to watch."""


class RTRLPast(NamedTuple):
    """Exact influence: per group (S, F, Z), per dense leaf (S, size)."""

    groups: tuple[jax.Array, ...]
    dense: tuple[jax.Array, ...]


def rtrl(cell: Cell, *, block: int = 1) -> Learner:
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

    Returns:
        A learner; `info` is empty.

    Raises:
        TypeError, ValueError: `block` is not an int >= 1.

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
    check_count("block", block, "1 is the classic algorithm")

    def past(structure):
        reach = find_sparsity(structure)
        if is_sparse_cheaper(structure, reach):
            # Read before a step joins it, which spares the compiler to make its entries twice.
            return sparse_past(structure, reach, RTRLInfo())._replace(own_weights=True)
        return _dense_past(structure)

    return engine(cell, past, block)


def _dense_past(structure: Structure) -> Past:
    """Every entry of the influence matrix."""
    size = structure.state_size

    def empty():
        return RTRLPast(
            tuple(
                jnp.zeros((size, g.factor_size, g.preact_size), structure.dtype) for g in structure.groups
            ),
            empty_dense(structure),
        )

    def read(past, credit):  # (2)
        groups = tuple(
            (credit @ influence.reshape(size, -1)).reshape(influence.shape[1:]) for influence in past.groups
        )
        return Sensitivity(groups, read_dense(structure, past.dense, credit))

    def push(key, past, block):  # (3)
        jacobian, rights, dense = block.matrices()
        rights = (right.dense for right in rights)
        groups = tuple(
            (jacobian @ influence.reshape(size, -1)).reshape(influence.shape)
            + jnp.swapaxes((f.T @ right.reshape(block.length, -1)).reshape(-1, *right.shape[1:]), 0, 1)
            for influence, f, right in zip(past.groups, block.factors(), rights, strict=True)
        )
        dense = tuple(jacobian @ a + b for a, b in zip(past.dense, dense, strict=True))
        return RTRLPast(groups, dense), RTRLInfo()

    return Past(empty, read, push, draws=False, at_once=True)
