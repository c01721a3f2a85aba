"""What a task is: an endless stream of labelled examples that runs inside scan."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int


class Example(NamedTuple):
    """One time step of every lane.

    Attributes:
        x: what each lane sees, (lanes, inputs).
        target: the symbol each lane should predict, (lanes,).
        restart: True where x is the first input of a sequence: nothing before it matters, (lanes,).
    """

    x: Float[Array, "lanes inputs"]
    target: Int[Array, " lanes"]
    restart: Bool[Array, " lanes"]


class Task(NamedTuple):
    """An endless stream with symbols to predict, as pure functions.

    Attributes:
        inputs: length of the input vector of one lane.
        outputs: number of symbols to choose from.
        init: `(key, lanes) -> state`.
        sample: `(state) -> (state, example)`, one time step.
        feedback: `(state, bits) -> state`, told the loss of that step, in bits, mean over lanes.
        metrics: `(state) -> dict` of scalars that a user watches.
    """

    inputs: int
    outputs: int
    init: Callable[..., Any]
    sample: Callable[[Any], tuple[Any, Example]]
    feedback: Callable[[Any, Any], Any]
    metrics: Callable[[Any], dict[str, Any]]
