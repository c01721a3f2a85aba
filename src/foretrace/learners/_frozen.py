"""A recurrence that is not trained: the readout learns alone."""

import jax
import jax.numpy as jnp

from foretrace._types import Cell, Learner
from foretrace.learners._catalogue._requirements import ANY_CELL
from foretrace.learners._catalogue._spec import CellSizes, Operations, Spec
from foretrace.learners._immediate import immediate


def frozen(cell: Cell) -> Learner:
    """No gradient for the cell, whatever the loss: the readout learns on random features of the past.

        gradient = 0                                                                     (1)

    Exactness: biased: the gradient is zero. Its score shows what an untrained recurrence gives.

    Cost: memory of one step per lane; time of one forward pass.

    Args:
        cell: the dynamics, any differentiable cell.

    Returns:
        A learner; `info` is empty.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.rnn(hidden=8, inputs=3)
        >>> learner = ft.frozen(cell)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))
        >>> float(abs(learner.grad(params, state, state.hidden)["bias"]).max())
        0.0

    Source: the reservoir of an echo state network, Jaeger, GMD Report 148, 2001, where the recurrence is
    also scaled by hand.
    """

    def grad(params, state, credit):  # (1)
        return jax.tree.map(jnp.zeros_like, params)

    return immediate(cell)._replace(grad=grad, sweep=grad)


def _operations(sizes: CellSizes, number: int, block: int) -> Operations:
    return {"forward": 2 * sizes.weights}


SPEC = Spec(
    factory=frozen,
    call="frozen(cell)",
    influence="none: the readout learns alone",
    exact=False,
    unbiased=False,
    memory="none",
    time="P",
    requires=ANY_CELL,
    source="a baseline",
    papers=("jaeger2001echo",),
    operations=_operations,
    order=11,
    takes_block=False,
)
