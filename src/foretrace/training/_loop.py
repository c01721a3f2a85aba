"""The training loop: a scan over steps in a scan over blocks, no cond, one dispatch a chunk."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from foretrace._checks import UserError, check_number, check_positive_int
from foretrace._types import Cell, Learner, at_phase
from foretrace._xla import false_after
from foretrace.structure._find import shapes_of
from foretrace.tasks import Task


class Streams(NamedTuple):
    """What runs on from step to step: the learner's state and the task's."""

    learner: Any
    task: Any


class Carry(NamedTuple):
    """All that training needs to continue: parameters, optimiser state and streams.

    `params` has `cell`, the cell's parameters, and `readout`, with `kernel` (n, outputs) and `bias`
    (outputs,), or empty where the task prescribes the cell.
    """

    params: dict[str, Any]
    optimizer: Any
    streams: Streams


class Metrics(NamedTuple):
    """What one chunk of training shows.

    Attributes:
        loss: as the task shows it, mean over steps and lanes.
        gradient_norm: global norm of the gradient before clipping, mean over updates.
        task: the task's metrics, each with one value per period.
        info: the learner's info, mean over lanes and blocks.
    """

    loss: Any
    gradient_norm: Any
    task: dict[str, Any]
    info: dict[str, Any]


class Trainer(NamedTuple):
    """Training as two pure functions, for `jax.jit` and, over seeds, `jax.vmap`.

    Attributes:
        init: `(key) -> carry`.
        chunk: `(carry) -> (carry, metrics)`, many steps in one dispatch.
        steps: time steps of a chunk.
        period: time steps after which both a block and an update end.
        task: what is trained on.
    """

    init: Callable[[Any], Carry]
    chunk: Callable[[Carry], tuple[Carry, Metrics]]
    steps: int
    period: int
    task: Task


def trainer(
    cell: Cell,
    learner: Learner,
    task: Task,
    optimizer: optax.GradientTransformation,
    *,
    lanes: int,
    steps: int,
    update_every: int = 1,
    clip: float | None = None,
) -> Trainer:
    """Trains `cell` and a linear readout on `task` with the gradients of `learner`.

    At each step the loss is the task's loss of the readout, mean over lanes. The
    readout's gradient is the exact instantaneous one; the cell's is the learner's answer to the
    credit, dL/dhidden. Lanes that start a sequence first get a fresh hidden state and lose their
    past.

    Args:
        cell: the cell of `learner`.
        learner: gives the gradient of the cell's parameters.
        task: the stream.
        optimizer: any optax optimiser.
        lanes: number of streams side by side.
        steps: time steps per chunk, a multiple of the period (see `period`).
        update_every: time steps per update, with the mean of their gradients; 1 is fully online.
            Where whole blocks lie between updates, each costs one sweep through its window.
        clip: global norm to which the gradient of all parameters is clipped; None for no clipping.

    Returns:
        The trainer.

    Raises:
        TypeError, ValueError: if a number is out of range or does not fit the learner's block.
    """
    for name, value in {"lanes": lanes, "update_every": update_every, "steps": steps}.items():
        check_positive_int(name, value, "1 is the least")
    if clip is not None:
        check_number("clip", clip, "> 0", "leave it out for no clipping")
    spacing = period(learner, update_every)
    if steps % spacing:
        raise UserError(
            f"steps must be a multiple of {spacing}, where a block and an update end together; "
            f"got {steps}; use {math.ceil(steps / spacing) * spacing}."
        )
    output = jax.eval_shape(lambda: cell.output(cell.initial_hidden()))
    if not task.cell and len(getattr(output, "shape", ())) != 1:
        raise UserError(
            f"cell.output must give a vector for the readout; got {shapes_of(output)}; give output= to "
            "ft.cell, such as lambda hidden: hidden[0]."
        )
    if clip is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(clip), optimizer)
    config = _TrainConfig(cell, learner, task, optimizer, update_every)
    turn = _updates_in_a_block if update_every < learner.block else _blocks_in_an_update

    def chunk(carry):
        def one(carry, _):
            carry, observed = turn(config, carry)
            return carry, (*observed, task.metrics(carry.streams.task))

        carry, (loss, norm, info, watched) = jax.lax.scan(one, carry, length=steps // spacing)
        info = {} if info is None else info._asdict()
        means = {name: jnp.mean(value.astype(loss.dtype)) for name, value in info.items()}
        return carry, Metrics(jnp.mean(loss), jnp.mean(norm), watched, means)

    return Trainer(lambda key: _init(config, key, lanes), chunk, steps, spacing, task)


def period(learner: Learner, update_every: int) -> int:
    """The number of time steps after which both a block and an update end.

    Raises:
        ValueError: if neither is a multiple of the other.
    """
    length = learner.block
    if update_every % length and length % update_every:
        raise UserError(
            f"update_every must divide the block length {length} or be a multiple of it; "
            f"got {update_every}; use {max(1, update_every // length) * length}."
        )
    return max(length, update_every)


class _TrainConfig(NamedTuple):
    cell: Cell
    learner: Learner
    task: Task
    optimizer: optax.GradientTransformation
    update_every: int


def _init(config, key, lanes):
    cell, task = config.cell, config.task
    cell_key, kernel_key, bias_key, learner_key, task_key = jax.random.split(key, 5)
    units = jax.eval_shape(lambda: cell.output(cell.initial_hidden()))
    shape, dtype = (*units.shape, task.outputs), units.dtype
    readout = {
        "kernel": 0.01 * jax.random.normal(kernel_key, shape, dtype),
        "bias": 0.01 * jax.random.normal(bias_key, shape[1:], dtype),
    }
    params = {"cell": cell.init(cell_key), "readout": {} if task.cell else readout}
    state = config.learner.init(learner_key, params["cell"], lanes=lanes)
    return Carry(params, config.optimizer.init(params), Streams(state, task.init(task_key, lanes)))


def _loss(config, readout, hidden, targets):
    """Mean over lanes of what is minimised."""

    def lane(hidden, target):
        return config.task.loss.of(predict(readout, config.cell.output(hidden)), target)

    return jnp.mean(jax.vmap(lane)(hidden, targets))


def predict(readout: dict[str, Any], output: Any) -> Any:
    """The prediction of a linear readout from one lane's output (n,); without one, the output itself."""
    return output @ readout["kernel"] + readout["bias"] if readout else output


def _advance(config, params, streams, phase):
    """One time step: streams, the loss as it is shown, the readout's gradient and the credit."""
    task, example = config.task.sample(streams.task)
    # The scan's own index is the same for all seeds: under vmap over seeds the window is then
    # written at one place, instead of being scattered into.
    state = at_phase(streams.learner, phase)
    state = config.learner.reset(state, example.restart)
    state = config.learner.advance(params["cell"], state, example.x)
    loss, (readout, credit) = jax.value_and_grad(partial(_loss, config), argnums=(0, 1))(
        params["readout"], state.hidden, example.target
    )
    loss = loss / config.task.loss.unit
    return Streams(state, config.task.feedback(task, loss)), loss, readout, credit


def _each_step(config, params, streams, indices):
    """Steps of one block, each with its own gradient: streams, gradients summed, mean loss."""

    def step(carry, phase):
        streams, total = carry
        streams, loss, readout, credit = _advance(config, params, streams, phase)
        gradient = config.learner.grad(params["cell"], streams.learner, credit)
        return (streams, _add(total, {"cell": gradient, "readout": readout})), loss

    (streams, total), loss = jax.lax.scan(step, (streams, _zeros(params)), indices)
    return streams, total, jnp.mean(loss)


def _swept(config, params, streams, indices):
    """One whole block with one sweep at its end: streams, gradients summed, mean loss."""

    def step(streams, phase):
        streams, *observed = _advance(config, params, streams, phase)
        return streams, observed

    streams, (loss, readout, credits) = jax.lax.scan(step, streams, indices)
    gradient = config.learner.sweep(params["cell"], streams.learner, credits)
    readout = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), readout)
    return streams, {"cell": gradient, "readout": readout}, jnp.mean(loss)


def _update(config, carry, streams, total):
    gradient = jax.tree.map(lambda leaf: leaf / config.update_every, total)
    with jax.numpy_dtype_promotion("standard"):  # optax relies on it
        changes, optimizer = config.optimizer.update(gradient, carry.optimizer, carry.params)
    params: Any = optax.apply_updates(carry.params, changes)
    return Carry(params, optimizer, streams), optax.tree.norm(gradient)


def _end_block(config, params, streams):
    state, info = config.learner.end_block(params["cell"], streams.learner)
    return streams._replace(learner=state), info


def _updates_in_a_block(config, carry):
    """One block with several updates: carry, and losses, gradient norms and info."""

    def segment(carry, indices):
        streams, total, loss = _each_step(config, carry.params, carry.streams, indices)
        carry, norm = _update(config, carry, streams, total)
        return carry, (loss, norm)

    indices = jnp.arange(config.learner.block).reshape(-1, config.update_every)
    carry, (loss, norm) = jax.lax.scan(segment, carry, indices)
    streams, info = _end_block(config, carry.params, carry.streams)
    return carry._replace(streams=streams), (loss, norm, info)


def _blocks_in_an_update(config, carry):
    """One update after one or more blocks: carry, and losses, the gradient norm and info."""
    length = config.learner.block
    run = _swept if length > 1 else _each_step

    def block(inner, _):
        streams, total = inner
        streams, gradient, loss = run(config, carry.params, streams, jnp.arange(length))
        streams, info = _end_block(config, _after(carry.params, gradient), streams)
        return (streams, _add(total, gradient)), (loss, info)

    start = (carry.streams, _zeros(carry.params))
    blocks = config.update_every // length
    (streams, total), (loss, info) = jax.lax.scan(block, start, length=blocks)
    carry, norm = _update(config, carry, streams, total)
    return carry, (loss, norm, info)


def _after(params, gradient):
    """Makes the smallest parameter array depend on `gradient`.

    XLA so reads the past before the next push overwrites it.
    """
    leaves, tree = jax.tree.flatten(params["cell"])
    places = {leaf.size: i for i, leaf in enumerate(leaves) if leaf.size}
    if places:
        least = places[min(places)]
        leaves[least] = jnp.where(false_after(gradient["cell"]), 0, leaves[least])
    return params | {"cell": jax.tree.unflatten(tree, leaves)}


def _zeros(tree: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, tree)


def _add(left: Any, right: Any) -> Any:
    return jax.tree.map(jnp.add, left, right)
