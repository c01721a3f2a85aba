"""The element-wise long short-term memory."""

from typing import Any

import jax
import jax.numpy as jnp

from foretrace._types import Cell
from foretrace.cells._cell import float_dtype, size


def elstm(*, hidden: int, inputs: int, dtype: Any = jnp.float32) -> Cell:
    """The element-wise LSTM (eLSTM): gates that see the input and their own cell, no other.

        f, z = split(x @ input + recurrent * [c; c] + bias)   (1)
        c' = sigmoid(f) c + (1 - sigmoid(f)) tanh(z)          (2)

    The paper's output gate, o = sigmoid(W [x; c']) and h = o c', feeds nothing back: it is a layer above,
    trained by plain `jax.grad` through `online`.

    Args:
        hidden: number of cells, n.
        inputs: length of the input vector.
        dtype: float dtype of parameters, state and input.

    Returns:
        A cell with hidden state c (n,) that starts at zero, and parameters `input` (inputs, 2n), `bias`
        (2n,) and `recurrent` (2n,), columns of f before those of z, all N(0, 0.1^2).
        One group, `input` and `bias`; `recurrent` belongs to one unit each and is tracked exactly.

    Raises:
        TypeError: if `dtype` is not a float dtype.
        ValueError: if a size is below 1.

    Source:
        Irie, Gopalakrishnan, Schmidhuber, Exploring the promise and limits of real-time recurrent
        learning, ICLR 2024; the biases as in the authors' code.
    """
    n, m, dtype = size("hidden", hidden), size("inputs", inputs), float_dtype(dtype)
    shapes = {"input": (m, 2 * n), "recurrent": (2 * n,), "bias": (2 * n,)}

    def init(key):
        keys = jax.random.split(key, len(shapes))
        return {
            name: 0.1 * jax.random.normal(k, shape, dtype)
            for k, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    def step(params, c, x):
        own = params["recurrent"] * jnp.concatenate([c, c])
        f, z = jnp.split(x @ params["input"] + own + params["bias"], 2)  # (1)
        f = jax.nn.sigmoid(f)
        return f * c + (1 - f) * jnp.tanh(z)  # (2)

    return Cell(
        init=init,
        initial_hidden=lambda: jnp.zeros(n, dtype),
        step=step,
        example_input=lambda: jnp.zeros(m, dtype),
    )
