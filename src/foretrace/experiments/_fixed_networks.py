"""Networks with fixed parameters whose gradients are measured, each with the stream that it reads."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from foretrace import cells, learners, tasks
from foretrace._types import Cell
from foretrace.training import predict, trainer

NETWORKS = {
    "untrained": "weights N(0, 0.01^2), as the papers start",
    "random": "recurrent weights N(0, 4 / n), input weights N(0, 1): units away from zero",
    "trained": "trained on the copy task",
}
_SYMBOLS = 4  # of the copy task


class Stream(NamedTuple):
    """Fixed parameters, and the inputs and credits of a learner along one stream.

    Attributes:
        params: of the cell.
        xs: inputs, (steps, symbols).
        credits: dL_t/dh_t with its length set to 1, so that every step counts alike, (steps, units).
    """

    params: Any
    xs: jax.Array
    credits: jax.Array


def highway(units: int) -> Cell:
    """The papers' network, for the copy task."""
    return cells.highway(hidden=units, inputs=_SYMBOLS)


def stream(
    kind: str, units: int, key: Any, *, steps: int, training: int = 0, rate: float = 0.0, length: int = 10
) -> Stream:
    """A network and its stream: the copy task at one length, never reset.

    Args:
        kind: one of `NETWORKS`.
        units: n.
        key: typed key; all else follows from it.
        steps: length of the stream.
        training: time steps of training, for "trained": by ok:8 with blocks of 16, 4 lanes, Adam.
        rate: learning rate of the training.
        length: bits to copy; where a network was trained, it keeps the length that it had reached.
    """
    cell, task = highway(units), endless(tasks.copy())
    cell_key, readout_key, stream_key, train_key = jax.random.split(key, 4)
    if kind == "trained":
        loop = trainer(
            cell,
            learners.ok(cell, rank=8, block=16),
            task,
            optax.adam(rate),
            lanes=4,
            steps=math.ceil(training / 16) * 16,
            clip=1.0,
        )
        carry = loop.chunk(loop.init(train_key))[0]
        params, length = carry.params, carry.streams.task.curriculum
    else:
        params: dict[str, Any] = {
            "cell": cell.init(cell_key) if kind == "untrained" else _random(units, cell_key),
            "readout": {
                "kernel": 0.01 * jax.random.normal(readout_key, (units, _SYMBOLS)),
                "bias": jnp.zeros(_SYMBOLS),
            },
        }
    start = task.init(stream_key, 1)._replace(curriculum=jnp.asarray(length, jnp.int32))
    return follow(cell, task, params, start, steps)


def follow(cell: Cell, task: tasks.Task, params: dict[str, Any], start: Any, steps: int) -> Stream:
    """The stream of a network with fixed parameters on a task that is never reset.

    Args:
        cell: its dynamics.
        task: of one lane.
        params: of the cell and the linear readout.
        start: the task's state.
        steps: length of the stream.
    """

    def loss(hidden, target):
        return task.loss.of(predict(params["readout"], hidden), target)

    def step(carry, _):
        state, hidden = carry
        state, example = task.sample(state)
        hidden = cell.step(params["cell"], hidden, example.x[0])
        credit = jax.grad(loss)(hidden, example.target[0])
        return (state, hidden), (example.x[0], credit / jnp.linalg.norm(credit))

    _, (xs, credits) = jax.lax.scan(step, (start, cell.initial_hidden()), length=steps)
    return Stream(params["cell"], xs, credits)


def endless(task: tasks.Task) -> tasks.Task:
    """The same stream without restarts: a network trained on it stays stable when it is never reset."""

    def sample(state):
        state, example = task.sample(state)
        return state, example._replace(restart=jnp.zeros_like(example.restart))

    return task._replace(sample=sample)


def _random(units: int, key: Any) -> dict[str, Any]:
    recurrent, inputs = jax.random.split(key)
    return {
        "input": jax.random.normal(inputs, (_SYMBOLS, 2 * units)),
        "recurrent": 2 * units**-0.5 * jax.random.normal(recurrent, (units, 2 * units)),
        "bias": jnp.zeros(2 * units),
    }


def streams_of(
    cell: Cell, task: tasks.Task, params: dict[str, Any], start: Any, steps: int
) -> tuple[Any, Any, jax.Array]:
    """What a trained network reads when it goes on with frozen parameters, on every lane of its task.

    Args:
        cell: its dynamics.
        task: what it was trained on.
        params: of the cell and the linear readout.
        start: the task's state.
        steps: length of the streams.

    Returns:
        Inputs, credits dL_t/dh_t and whether a sequence begins, leaves (steps, lanes, ..).
    """

    def loss(hidden, target):
        return task.loss.of(predict(params["readout"], cell.output(hidden)), target)

    def lane(hidden, restart, x, target):
        hidden = jax.tree.map(lambda a, b: jnp.where(restart, a, b), cell.initial_hidden(), hidden)
        hidden = cell.step(params["cell"], hidden, x)
        return hidden, jax.grad(loss)(hidden, target)

    def step(carry, _):
        state, hidden = carry
        state, example = task.sample(state)
        hidden, credit = jax.vmap(lane)(hidden, example.restart, example.x, example.target)
        return (state, hidden), (example.x, credit, example.restart)

    lanes = len(jax.eval_shape(task.sample, start)[1].restart)
    hidden = jax.tree.map(lambda a: jnp.repeat(a[None], lanes, axis=0), cell.initial_hidden())
    return jax.lax.scan(step, (start, hidden), length=steps)[1]
