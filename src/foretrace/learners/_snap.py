"""SnAp-n, the influence matrix with a sparse pattern that is kept."""

from typing import Any

from foretrace._checks import check_positive_int
from foretrace._types import Cell, Learner
from foretrace.learners._catalogue._requirements import ANY_CELL
from foretrace.learners._catalogue._spec import CellSizes, Number, Operations, Spec
from foretrace.learners._engine import learner_of
from foretrace.learners._engine._sparse import SparseRule


def snap(cell: Cell, *, order: int, block: int = 1, past_dtype: Any = None) -> Learner:
    """SnAp-n: the entries of the influence matrix that parameters reach within `order` steps.

        mask = non-zeros of the influence matrix after `order` steps                     (1)
        influence <- mask * (state_jacobian influence + immediate_jacobian)              (2)
        gradient = credit . influence                                                    (3)

    The mask follows from the cell's program: weights that are multiplied by a constant 0/1 mask in
    `cell.step` count as absent, in both Jacobians. Order 1 keeps what a weight does to its own unit.

    Exactness: biased towards paths inside the mask. Exact where the mask holds all that can ever be
    reached: for an order that is large enough always, for recurrences within single units from order 1.

    Cost: with K the entries that a parameter reaches (1 for `rnn` and `highway` at order 1, 2 for `lstm`),
    memory K P per lane, time K^2 P per step, and that of the state Jacobian: nothing for recurrences within
    single units, S^2 where pre-activations act elementwise on the state, S^3 otherwise. Of `gru`, whose
    reset gate reaches all units at once, order 1 keeps those columns whole.

    Args:
        cell: the dynamics, any differentiable cell.
        order: n, steps within which an entry must be reached to be kept.
        block: steps that are kept exactly, without a mask, before they join the past; 1 is the paper's
            algorithm.
        past_dtype: `jnp.bfloat16` stores the past in half the bytes, rounded at random.

    Returns:
        A learner; `info` is empty.

    Raises:
        TypeError, ValueError: `order` or `block` is not an int >= 1, or `past_dtype` not bfloat16.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.rnn(hidden=8, inputs=3)
        >>> learner = ft.snap(cell, order=1)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))
        >>> [part.shape for part in state.past.parts]  # lanes, entries, columns, weights, sets
        [(1, 1, 1, 12, 8)]

    Source: Menick, Elsen, Evci, Osindero, Simonyan, Graves, ICLR 2021. There the mask is that of the
    non-zeros found in a run; here it is what the program allows, which is the same or larger.
    """
    check_positive_int("order", order, "immediate(cell) keeps nothing")
    check_positive_int("block", block, "1 is the paper's algorithm")

    return learner_of(
        cell, lambda structure: SparseRule(structure, steps=order), block, past_dtype=past_dtype
    )  # (1), (2), (3)


def _operations(sizes: CellSizes, order: int, block: int) -> Operations:
    return sizes.window(block) | sizes.sparse_influence(sizes.column_sets(order))


SPEC = Spec(
    factory=snap,
    call="snap(cell, order=n)",
    influence="entries reached in n steps",
    exact=False,
    unbiased=False,
    memory="K P",
    time="K^2 P",
    requires=ANY_CELL,
    source="Menick et al. 2021",
    papers=("menick2021practical",),
    operations=_operations,
    order=6,
    number=Number("order", 1, recommended=(2, 1)),
    takes_past_dtype=True,
)
