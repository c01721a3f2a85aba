"""From options to a trainer; options that do not fit are refused here, before a run begins."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import optax
import tyro

from foretrace._checks import UserError, check_number, check_positive_int
from foretrace._types import Cell
from foretrace.learners import Choice, Cost, Explanation, analyse, parse
from foretrace.tasks import Task
from foretrace.training import Trainer, chunks_for, guarded, period, trainer

OPTIMIZERS = {"adam": optax.adam, "sgd": optax.sgd}
OptionalInt = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
if TYPE_CHECKING:
    OptimizerName = str
else:
    OptimizerName = Literal[tuple(OPTIMIZERS)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of every training."""

    lanes: int = 16
    """Independent streams trained side by side."""
    block: int | Literal["auto"] = "auto"
    """Steps that are kept exactly before they join the compressed past; 1 is the papers' algorithm,
    more is faster and less noisy, auto the fastest for these sizes. The block of tbptt is its window."""
    update_every: OptionalInt = None
    """Steps per update; 1 unless given, for tbptt its window."""
    optimizer: OptimizerName = "adam"
    """Optimiser of the parameters."""
    learning_rate: float = 3e-3
    """Learning rate at the first step."""
    decay: float = 0.0
    """Fall of the learning rate: after t time steps it is divided by 1 + decay sqrt(t)."""
    clip: float | None = 1.0
    """Global norm to which gradients are clipped; None for no clipping."""
    steps: int = 150_000
    """Time steps, rounded up to whole blocks."""
    chunk: int = 500
    """About how many steps run between two lines of metrics."""


class Run(NamedTuple):
    """One learner, ready to train; nothing has been written yet.

    Attributes:
        label: its name, with its number if it has one.
        explanation: the structure of the cell.
        cost: bytes and operations of the learner, all lanes.
        trainer: the training loop.
        guarded_chunk: its chunk, guarded against numbers that are not finite.
        chunks: number of chunks to run.
        update_every: steps per update.
        block: steps per block; the window of tbptt.
    """

    label: str
    explanation: Explanation
    cost: Cost
    trainer: Trainer
    guarded_chunk: Callable
    chunks: int
    update_every: int
    block: int

    @property
    def steps(self) -> int:
        """Time steps of the whole run."""
        return self.chunks * self.trainer.steps

    @property
    def settings(self) -> dict[str, int]:
        """The options that are chosen or rounded here."""
        return {"steps": self.steps, "update_every": self.update_every, "block": self.block}


def build_run(options: Settings, text: str, task: Task, cell: Cell, **sizes: int | None) -> Run:
    """Builds the learner that `text` names, and what trains it.

    Args:
        options: the settings of the run.
        text: its name, with its number, block and copies if they are not the default.
        task: the stream.
        cell: the dynamics.
        sizes: the options `rank` and `window`, or None.

    Raises:
        TypeError, ValueError: if any option is out of range or does not fit the others.
    """
    choice = _choice(text, **sizes)
    _check(options)
    explanation = analyse(cell)
    update_every = 1 if options.update_every is None else options.update_every
    check_positive_int("update_every", update_every, "1 is online")
    block = choice.block or options.block
    if block == "auto":
        block = explanation.best_block(choice, lanes=options.lanes)
        # Where updates come at another rhythm, a block between two of them is what fits.
        block = block if block % update_every == 0 or update_every % block == 0 else update_every
    check_positive_int("block", block, "1 is the papers' algorithm")
    if choice.spec.takes_block:
        choice = choice._replace(block=block)
    learner = choice.build(cell)
    if options.update_every is None and choice.spec.name == "tbptt":
        update_every = learner.block
    spacing = period(learner, update_every)
    steps, chunks = chunks_for(options.steps, spacing, options.chunk)
    optimizer = OPTIMIZERS[options.optimizer](_rate(options, update_every))
    common: dict[str, Any] = {
        "lanes": options.lanes,
        "steps": steps,
        "update_every": update_every,
        "clip": options.clip,
    }
    return Run(
        label=str(choice if "/" in text else choice._replace(block=None)),
        explanation=explanation,
        cost=explanation.cost(choice, lanes=options.lanes),
        trainer=trainer(cell, learner, task, optimizer, **common),
        guarded_chunk=guarded(cell, learner, task, optimizer, **common),
        chunks=chunks,
        update_every=update_every,
        block=learner.block,
    )


def _rate(options: Settings, update_every: int) -> Any:
    """The learning rate, as a schedule over updates where it falls."""
    if not options.decay:
        return options.learning_rate
    return lambda count: options.learning_rate / (1 + options.decay * (count * update_every) ** 0.5)


def _check(options: Settings) -> None:
    """Raises TypeError or ValueError for numbers that make no sense on their own."""
    for name in ("learning_rate", "clip"):
        value = getattr(options, name)
        if value is not None:
            check_number(name, value, "> 0", "the default is usual")
    check_number("decay", options.decay, ">= 0", "0 keeps the rate constant")
    for name in ("steps", "chunk"):
        check_positive_int(name, getattr(options, name), "leave it out for the default")


def _choice(text: str, **sizes: int | None) -> Choice:
    """The learner that `text` names, with the option `rank` or `window` in the place of its number."""
    choice = parse(text)
    number = choice.spec.number
    values = {option: value for option, value in sizes.items() if value is not None}
    for option, value in values.items():
        if number is None or option != number.keyword:
            raise UserError(
                f"{option} must be left out for {choice.spec.name}; got {value}; drop --{option}."
            )
        if ":" in text and value != choice.number:
            raise UserError(f"{option} must be given once; got {text!r} and {value}; drop one.")
        choice = choice._replace(number=value)
    return choice
