"""Truncated back-propagation through time, the yardstick."""

from typing import NamedTuple

import jax

from foretrace._checks import check_positive_int
from foretrace._types import Cell, Learner
from foretrace.learners._catalogue._requirements import ANY_CELL
from foretrace.learners._catalogue._spec import Number, Spec
from foretrace.learners._engine import learner_of
from foretrace.learners._engine._block import Block
from foretrace.learners._engine._past import GroupedGradient, NoInfo, PastRule, zero_gradient


class TBPTTPast(NamedTuple):
    """Nothing: steps before the window are dropped."""


def tbptt(cell: Cell, *, window: int) -> Learner:
    """TBPTT: the exact gradient inside a window, nothing from before it.

    The stream is cut into windows of `window` steps; credit at a step runs back to its window's start:

        gradient = sum over the window's steps up to now of f (x) (credit . D)                (1)

    so it sees 1 step at a window's first step and `window` at its last. The sum of a window's gradients,
    for one update per window, is block TBPTT as it is always used. (After an update inside a window credit
    runs back through the new weights.)

    Exactness: biased, unless the window reaches back to the start of the stream.

    Cost: memory `window` steps per lane; time of a forward pass and of a backward pass to the window's
    start per gradient, one backward pass per window when there is one update per window.

    Args:
        cell: the dynamics, any differentiable cell.
        window: steps per window.

    Returns:
        A learner; `info` is empty.

    Raises:
        TypeError, ValueError: `window` is not an int >= 1.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.lstm(hidden=8, inputs=3)
        >>> learner = ft.tbptt(cell, window=5)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))

    Source: Williams & Peng, Neural Computation 2(4), 1990.
    """
    check_positive_int("window", window, "for gradients that are not truncated use ok(cell, rank=16)")

    return learner_of(cell, _TBPTTRule, window, one_update=True)


class _TBPTTRule(PastRule[TBPTTPast]):
    """Drops the past; the gradient (1) is the window's."""

    is_random = False

    def empty(self) -> TBPTTPast:
        return TBPTTPast()

    def read(self, past: TBPTTPast, credit: jax.Array) -> GroupedGradient:
        return zero_gradient(self.structure)

    def push(self, key: jax.Array, past: TBPTTPast, block: Block) -> tuple[TBPTTPast, NoInfo]:
        return TBPTTPast(), NoInfo()


SPEC = Spec(
    factory=tbptt,
    call="tbptt(cell, window=T)",
    influence="dropped after T steps",
    exact=False,
    unbiased=False,
    memory="T steps",
    time="P",
    requires=ANY_CELL,
    source="Williams & Peng 1990",
    papers=("williams1990efficient",),
    operations=lambda sizes, window, block: sizes.window(1),  # one sweep per window
    order=9,
    number=Number("window", 25, recommended=(25,)),
    takes_block=False,
    one_update=True,
)
