"""The loss on text that is not learned from, with a hidden state that is carried and never reset."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from foretrace._types import Cell
from foretrace.tasks import Task
from foretrace.training._loop import predict


def evaluation(
    cell: Cell, task: Task, symbols: UInt8[np.ndarray, " n"], lanes: int = 64
) -> Callable[[dict[str, Any]], Any]:
    """The mean loss over a text, as a function of the trainer's parameters.

    The text is cut into `lanes` stretches that are read side by side, each from the cell's initial hidden
    state; every character but the first is predicted once.

    Args:
        cell: what was trained.
        task: what it was trained on, with one-hot inputs.
        symbols: the text (see `tasks.read_text`).
        lanes: number of stretches; at most one for every 100 characters is used.

    Returns:
        `(params) -> loss`, as the task shows it.
    """
    count = len(symbols) - 1
    lanes = max(1, min(lanes, count // 100))
    length = -(-count // lanes)
    # Steps that fill up the last stretch weigh nothing.
    inputs, targets, weights = (
        jnp.asarray(np.pad(a, (0, lanes * length - count)).reshape(lanes, length).T)
        for a in (symbols[:-1], symbols[1:], np.ones(count, np.float32))
    )

    def evaluate(params):
        def lane(hidden, inputs, targets):
            hidden = cell.step(
                params["cell"], hidden, jax.nn.one_hot(inputs, task.inputs, dtype=jnp.float32)
            )
            return hidden, task.loss.of(predict(params["readout"], cell.output(hidden)), targets)

        def step(hidden, row):
            inputs, targets, weight = row
            hidden, losses = jax.vmap(lane)(hidden, inputs, targets)
            return hidden, losses @ weight

        start = jax.tree.map(lambda a: jnp.repeat(a[None], lanes, axis=0), cell.initial_hidden())
        _, totals = jax.lax.scan(step, start, (inputs, targets, weights))
        return jnp.sum(totals) / count / task.loss.unit

    return evaluate
