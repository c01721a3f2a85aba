"""The tanh recurrent network."""

from typing import Any

import jax.numpy as jnp

from foretrace._types import Cell
from foretrace.cells._cell import affine, dense, float_dtype, size


def rnn(*, hidden: int, inputs: int, dtype: Any = jnp.float32) -> Cell:
    """A fully recurrent network with tanh units.

        z = x @ input + h @ recurrent + bias        (1)
        h' = tanh(z)                                (2)

    Args:
        hidden: number of units, n.
        inputs: length of the input vector.
        dtype: float dtype of parameters, state and input.

    Returns:
        A cell with hidden state (n,) that starts at zero, and parameters `input` (inputs, n),
        Glorot uniform, `recurrent` (n, n), orthogonal, and `bias` (n,), zero. One group.

    Raises:
        TypeError: if `dtype` is not a float dtype.
        ValueError: if a size is below 1.

    Source:
        Elman, Finding structure in time, Cognitive Science 14, 1990.
    """
    n, m, dtype = size("hidden", hidden), size("inputs", inputs), float_dtype(dtype)

    def step(params, h, x):
        return jnp.tanh(affine(params, h, x))  # (1), (2)

    return Cell(
        init=lambda key: dense(key, m, n, 1, dtype),
        initial_hidden=lambda: jnp.zeros(n, dtype),
        step=step,
        example_input=lambda: jnp.zeros(m, dtype),
    )
