"""A task: an endless stream of labelled examples that runs inside scan."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

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
    """The number that is minimised at every step, and its form in records and pictures.

    Attributes:
        name: its name in the records.
        of: `(prediction (outputs,), target) -> scalar`, of one lane.
        unit: records have the loss divided by it.
        label: its name on an axis; `name` unless given.
    """

    name: str
    of: Callable[[Any, Any], Any]
    unit: float
    label: str = ""


class Metric(NamedTuple):
    """A number beside the loss that tells how well a task is learned.

    Attributes:
        name: its name in the records.
        label: its name on an axis.
        of: `(params) -> scalar`, of the trainer's parameters; None for a number that `Task.metrics` gives.
        every: about how many time steps from one measurement by `of` to the next; the end is measured too.
        start: of a curriculum, the level it starts at, a whole number that only rises; None for others.
        rises_below: of a curriculum, the mean loss below which it rises, or None.
        goal: where it should arrive and a name for that value, or None.
        is_loss: True for the loss on other data, which is drawn with the loss.
    """

    name: str
    label: str
    of: Callable[[Any], Any] | None = None
    every: int = 1
    start: int | None = None
    rises_below: float | None = None
    goal: tuple[float, str] | None = None
    is_loss: bool = False


class Task(NamedTuple):
    """An endless stream with something to predict, as pure functions.

    Attributes:
        inputs: length of the input vector of one lane.
        outputs: number of symbols to choose from, or of numbers to predict.
        init: `(key, lanes) -> state`.
        sample: `(state) -> (state, example)`, one time step.
        loss: the number that is minimised.
        feedback: `(state, loss) -> state`, called with that step's loss, as it is shown, mean over lanes.
        metrics: `(state) -> dict` of scalars for the records.
        shown: the metrics that commands and pictures show, the most telling one first.
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
    shown: tuple[Metric, ...] = ()
    floor: float | None = None
    cell: Cell | None = None

    @property
    def loss_metric(self) -> Metric:
        """The loss as a metric, with its floor as the goal."""
        label = self.loss.label or self.loss.name.replace("_", " ")
        goal = (self.floor, f"floor {self.floor:.3f}") if self.floor else None
        return Metric(self.loss.name, label, goal=goal, is_loss=True)


@runtime_checkable
class Measured(Protocol):
    """Anything whose runs are shown by a loss and other metrics, as those of a `Task` are."""

    @property
    def loss_metric(self) -> Metric:
        """The number that a run's records always have."""
        ...

    @property
    def shown(self) -> tuple[Metric, ...]:
        """The metrics that are shown beside it, the most telling one first."""
        ...


class TaskSpec(NamedTuple):
    """A task as commands offer it.

    Attributes:
        name: the word that names it.
        make: the task; its keyword arguments become options.
        purpose: one line for the help text.
        defaults: options of a training whose usual values do not suit this task.
        examples: words after `foretrace train NAME`.
    """

    name: str
    make: Callable[..., Task]
    purpose: str
    defaults: dict[str, Any] = {}  # noqa: RUF012
    examples: tuple[str, ...] = ("",)


def cross_entropy(logits: Float[Array, " n"], target: Integer[Array, ""]) -> Float[Array, ""]:
    """Cross-entropy in nats of the softmax of `logits` and a symbol."""
    hit = jax.nn.one_hot(target, logits.size, dtype=logits.dtype)
    return -jax.nn.log_softmax(logits) @ hit


def squared_error(prediction: Float[Array, " n"], target: Float[Array, " n"]) -> Float[Array, ""]:
    """Squared Euclidean distance."""
    return jnp.sum((prediction - target) ** 2)


BITS = Loss("bits", cross_entropy, math.log(2), "bits per character")
BITS_PER_BYTE = BITS._replace(name="bits_per_byte", label="bits per byte")
SQUARED = Loss("squared_error", squared_error, 1.0)
