"""The gated recurrent unit in its original form."""

from typing import Any

import jax
import jax.numpy as jnp

from foretrace._types import Cell
from foretrace._xla import map_sequentially
from foretrace.cells._cell import affine, dense, float_dtype, size


def gru(*, hidden: int, inputs: int, dtype: Any = jnp.float32) -> Cell:
    """The gated recurrent unit, with the reset gate before the recurrent product.

        r = sigmoid(x @ W_r + h @ U_r + b_r)                  (1)
        u = sigmoid(x @ W_u + h @ U_u + b_u)                  (2)
        h' = u h + (1 - u) tanh(x @ W_c + (r h) @ U_c + b_c)  (3)

    Args:
        hidden: number of units, n.
        inputs: length of the input vector.
        dtype: float dtype of parameters, state and input.

    Returns:
        A cell with hidden state (n,) that starts at zero, and parameters `reset` (r), `update` (u)
        and `candidate` (c), each with `input` W (inputs, n), Glorot uniform, `recurrent` U (n, n),
        orthogonal, and `bias` b (n,), zero. Three groups.

    Raises:
        TypeError: if `dtype` is not a float dtype.
        ValueError: if a size is below 1.

    Source:
        Cho et al., Learning phrase representations using RNN encoder-decoder, EMNLP 2014, eqs. 5-8.
    """
    n, m, dtype = size("hidden", hidden), size("inputs", inputs), float_dtype(dtype)
    gates = ("reset", "update", "candidate")

    def init(key):
        drawn = map_sequentially(lambda k: dense(k, m, n, 1, dtype), jax.random.split(key, len(gates)))
        return {gate: jax.tree.map(lambda a, i=i: a[i], drawn) for i, gate in enumerate(gates)}

    def step(params, h, x):
        r = jax.nn.sigmoid(affine(params["reset"], h, x))  # (1)
        u = jax.nn.sigmoid(affine(params["update"], h, x))  # (2)
        return u * h + (1 - u) * jnp.tanh(affine(params["candidate"], r * h, x))  # (3)

    return Cell(
        init=init,
        initial_hidden=lambda: jnp.zeros(n, dtype),
        step=step,
        example_input=lambda: jnp.zeros(m, dtype),
    )
