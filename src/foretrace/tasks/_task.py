"""What a task is: an endless stream of labelled examples that runs inside scan."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Shaped

from foretrace._types import Cell


class Example(NamedTuple):
    """One time step of every lane.

    Attributes:
        x: what each lane sees, (lanes, inputs).
        target: what each lane should predict: a symbol (lanes,), or numbers (lanes, outputs).
        restart: True where x is the first input of a sequence: nothing before it matters, (lanes,).
    """

    x: Float[Array, "lanes inputs"]
    target: Shaped[Array, "lanes ..."]
    restart: Bool[Array, " lanes"]


class Loss(NamedTuple):
    """What is minimised at every step, and how it is shown.

    Attributes:
        name: of what is shown.
        of: `(prediction (outputs,), target) -> scalar`, of one lane.
        unit: what is shown is the loss divided by it.
    """

    name: str
    of: Callable[[Any, Any], Any]
    unit: float


class Task(NamedTuple):
    """An endless stream with something to predict, as pure functions.

    Attributes:
        inputs: length of the input vector of one lane.
        outputs: number of symbols to choose from, or of numbers to predict.
        init: `(key, lanes) -> state`.
        sample: `(state) -> (state, example)`, one time step.
        loss: what is minimised.
        feedback: `(state, loss) -> state`, told the loss of that step as it is shown, mean over lanes.
        metrics: `(state) -> dict` of scalars that a user watches.
        floor: the least mean loss that can be reached, as it is shown; None where it is not known.
        cell: the dynamics, where the task prescribes them. There is then no readout: the loss sees the
            cell's features themselves.
    """

    inputs: int
    outputs: int
    init: Callable[..., Any]
    sample: Callable[[Any], tuple[Any, Example]]
    loss: Loss
    feedback: Callable[[Any, Any], Any] = lambda state, loss: state
    metrics: Callable[[Any], dict[str, Any]] = lambda state: {}
    floor: float | None = None
    cell: Cell | None = None


def cross_entropy(logits: Float[Array, " n"], target: Integer[Array, ""]) -> Float[Array, ""]:
    """Cross-entropy in nats of the softmax of `logits` and a symbol."""
    hit = jax.nn.one_hot(target, logits.size, dtype=logits.dtype)
    return -jax.nn.log_softmax(logits) @ hit


def squared_error(prediction: Float[Array, " n"], target: Float[Array, " n"]) -> Float[Array, ""]:
    """Squared Euclidean distance."""
    return jnp.sum((prediction - target) ** 2)


BITS = Loss("bits", cross_entropy, math.log(2))
SQUARED = Loss("squared_error", squared_error, 1.0)
