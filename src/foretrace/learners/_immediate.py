"""No propagation at all: the baseline that every learner must beat."""

from foretrace._types import Cell, Learner
from foretrace.learners._catalogue._requirements import ANY_CELL
from foretrace.learners._catalogue._spec import Spec
from foretrace.learners._tbptt import tbptt


def immediate(cell: Cell) -> Learner:
    """The gradient of the present step alone, as if the hidden state before it were a constant.

        gradient = credit . immediate_jacobian                                           (1)

    Exactness: biased towards the effects that parameters have within one step; whatever has to be
    remembered is not learned through the recurrence. The same as `tbptt(cell, window=1)`.

    Cost: memory of one step per lane; time of one forward and one backward pass.

    Args:
        cell: the dynamics, any differentiable cell.

    Returns:
        A learner; `info` is empty.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.rnn(hidden=8, inputs=3)
        >>> learner = ft.immediate(cell)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))
        >>> state.hidden.shape
        (8,)

    Source: the order 0 of Menick et al., ICLR 2021 (`snap`); as a baseline of its own: Shalev-Merin,
    arXiv 2603.28750, 2026.
    """
    return tbptt(cell, window=1)  # (1)


SPEC = Spec(
    factory=immediate,
    call="immediate(cell)",
    influence="the present step alone",
    exact=False,
    unbiased=False,
    memory="none",
    time="P",
    requires=ANY_CELL,
    source="a baseline",
    papers=("menick2021practical",),
    operations=lambda sizes, number, block: sizes.window(1),
    order=10,
    takes_block=False,
)
