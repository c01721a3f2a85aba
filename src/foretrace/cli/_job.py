"""From options to a trainer; options that do not fit are refused here, before a run begins."""

import dataclasses
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import jax
import optax
import tyro
from jax.sharding import Mesh

from foretrace import scale
from foretrace._checks import UserError, check_number, check_positive_int
from foretrace._types import Cell
from foretrace.learners import Cost, Explanation, analyse, parse
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
        like: `(key) -> carry`, shapes of all that continues, and where they lie if that is on a mesh.
    """

    label: str
    explanation: Explanation
    cost: Cost
    trainer: Trainer
    guarded_chunk: Callable
    chunks: int
    update_every: int
    block: int
    like: Callable[[Any], Any]

    @property
    def steps(self) -> int:
        """Time steps of the whole run."""
        return self.chunks * self.trainer.steps

    @property
    def settings(self) -> dict[str, int]:
        """The options that are chosen or rounded here."""
        return {"steps": self.steps, "update_every": self.update_every, "block": self.block}


def build_run(options: Settings, text: str, task: Task, cell: Cell, mesh: Mesh | None = None) -> Run:
    """Builds the learner that `text` names, and what trains it.

    Args:
        options: the settings of the run.
        text: its name, with its number, block and copies if they are not the default.
        task: the stream.
        cell: the dynamics.
        mesh: devices to divide it over.

    Raises:
        TypeError, ValueError: if any option is out of range or does not fit the others, the memory or the
            mesh.
    """
    choice = parse(text)
    _check(options)
    check_network(cell)
    explanation = analyse(cell)
    update_every = choice.update_every if options.update_every is None else options.update_every
    if choice.spec.takes_block:
        block = choice.block or options.block
        if block == "auto":
            block = explanation.best_block(choice, lanes=options.lanes)
            # Where updates come at another rhythm, a block between two of them is what fits.
            block = block if block % update_every == 0 or update_every % block == 0 else update_every
        choice = choice._replace(block=block)
    learner, cost = choice.build(cell), explanation.cost(choice, lanes=options.lanes)
    _check_memory(str(choice), cost.bytes, "a smaller number or block, fewer lanes or fewer units")
    spacing = period(learner, update_every)
    steps, chunks = chunks_for(options.steps, spacing, options.chunk)
    optimizer = OPTIMIZERS[options.optimizer](_rate(options, update_every))
    common: dict[str, Any] = {
        "lanes": options.lanes,
        "steps": steps,
        "update_every": update_every,
        "clip": options.clip,
    }
    layout = scale.Layout(cell, mesh) if mesh else None
    if layout is not None:
        layout.check_lanes(options.lanes)
    learner = scale.shard(learner, mesh, cell) if mesh else learner
    training = trainer(cell, learner, task, optimizer, **common)
    guarded_chunk = guarded(cell, learner, task, optimizer, **common)

    def like(key):
        shapes = jax.eval_shape(training.init, key)
        if layout is None:
            return shapes
        where = scale.carry_shardings(shapes, training, learner, layout, options.lanes)
        return jax.tree.map(
            lambda a, at: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=at), shapes, where
        )

    if layout is not None:
        parts = training, learner, layout, options.lanes
        training, guarded_chunk = scale.shard_trainer(*parts), scale.shard_chunk(guarded_chunk, *parts)
    return Run(
        label=str(choice if "/" in text else choice._replace(block=None)),
        explanation=explanation,
        cost=cost,
        trainer=training,
        guarded_chunk=guarded_chunk,
        chunks=chunks,
        update_every=update_every,
        block=learner.block,
        like=like,
    )


def _rate(options: Settings, update_every: int) -> Any:
    """The learning rate, as a schedule over updates where it falls."""
    if not options.decay:
        return options.learning_rate
    return lambda count: options.learning_rate / (1 + options.decay * (count * update_every) ** 0.5)


def _check(options: Settings) -> None:
    """Raises TypeError or ValueError for numbers that make no sense on their own."""
    check_positive_int("lanes", options.lanes, "1 is a single stream")
    if options.block != "auto":
        check_positive_int("block", options.block, "1 is the papers' algorithm")
    if options.update_every is not None:
        check_positive_int("update_every", options.update_every, "1 is online")
    check_number("learning_rate", options.learning_rate, "> 0", "the default is usual")
    if options.clip is not None:
        check_number("clip", options.clip, "> 0", "None is for no clipping")
    check_number("decay", options.decay, ">= 0", "0 keeps the rate constant")
    for name in ("steps", "chunk"):
        check_positive_int(name, getattr(options, name), "leave it out for the default")


def check_network(cell: Cell) -> None:
    """Raises UserError where this computer has no room for the parameters of a cell."""
    params = jax.tree.leaves(jax.eval_shape(cell.init, jax.random.key(0)))
    _check_memory("the network", sum(leaf.size * leaf.dtype.itemsize for leaf in params), "fewer units")


def _check_memory(name: str, size: int, remedy: str) -> None:
    """Raises UserError where this computer has no room for an array twice, before and after a chunk."""
    if jax.default_backend() != "cpu" or not hasattr(os, "sysconf"):
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 2 * size > memory:
        raise UserError(
            f"memory must hold {name} twice, {2 * size / 1e9:,.0f} GB; got {memory / 1e9:,.0f} GB; use "
            f"{remedy}."
        )
