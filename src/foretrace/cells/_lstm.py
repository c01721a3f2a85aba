"""Long short-term memory."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from foretrace._types import Cell
from foretrace.cells._cell import affine, dense, float_dtype, size


class LSTMHidden(NamedTuple):
    """The state of an LSTM: both halves persist, readouts read `h`."""

    c: Float[Array, " *lanes n"]
    h: Float[Array, " *lanes n"]


def lstm(*, hidden: int, inputs: int, dtype: Any = jnp.float32) -> Cell:
    """Long short-term memory with forget gate; the hidden state is the pair (c, h).

        i, f, g, o = split(x @ input + h @ recurrent + bias)  (1)
        c' = sigmoid(f) c + sigmoid(i) tanh(g)                (2)
        h' = sigmoid(o) tanh(c')                              (3)

    Args:
        hidden: number of units, n; the state has 2n floats.
        inputs: length of the input vector.
        dtype: float dtype of parameters, state and input.

    Returns:
        A cell with hidden state `LSTMHidden(c, h)`, (n,) each, that starts at zero, output h, and
        parameters `input` (inputs, 4n), Glorot uniform, `recurrent` (n, 4n), orthogonal per gate, and
        `bias` (4n,), zero but 1 for the forget gate; columns in the order i, f, g, o. One group.

    Raises:
        TypeError: if `dtype` is not a float dtype.
        ValueError: if a size is below 1.

    Source:
        Gers, Schmidhuber, Cummins, Learning to forget, Neural Computation 12, 2000; forget bias 1
        as recommended by Jozefowicz, Zaremba, Sutskever, ICML 2015.
    """
    n, m, dtype = size("hidden", hidden), size("inputs", inputs), float_dtype(dtype)

    def init(key):
        params = dense(key, m, n, 4, dtype)
        return params | {"bias": params["bias"].at[n : 2 * n].set(1)}

    def step(params, hidden, x):
        i, f, g, o = jnp.split(affine(params, hidden.h, x), 4)  # (1)
        c = jax.nn.sigmoid(f) * hidden.c + jax.nn.sigmoid(i) * jnp.tanh(g)  # (2)
        return LSTMHidden(c, jax.nn.sigmoid(o) * jnp.tanh(c))  # (3)

    return Cell(
        init=init,
        initial_hidden=lambda: LSTMHidden(jnp.zeros(n, dtype), jnp.zeros(n, dtype)),
        step=step,
        example_input=lambda: jnp.zeros(m, dtype),
        output=lambda hidden: hidden.h,
    )
