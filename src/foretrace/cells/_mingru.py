"""The minimal gated recurrent unit."""

from typing import Any

import jax
import jax.numpy as jnp

from foretrace._types import Cell
from foretrace.cells._cell import float_dtype, size


def mingru(*, hidden: int, inputs: int, dtype: Any = jnp.float32) -> Cell:
    """The minimal gated recurrent unit (minGRU): a gate that sees the input alone, and nothing else.

        g, c = split(x @ input + bias)                        (1)
        h' = (1 - sigmoid(g)) h + sigmoid(g) c                (2)

    Linear in the past, unit by unit, so that exact RTRL costs no more than a forward pass. What is kept
    depends on what is seen, and never on what is remembered.

    Args:
        hidden: number of units, n.
        inputs: length of the input vector.
        dtype: float dtype of parameters, state and input.

    Returns:
        A cell with hidden state (n,) that starts at zero, and parameters `input` (inputs, 2n), columns of
        g before those of c, Glorot uniform for each, and `bias` (2n,), zero. One group.

    Raises:
        TypeError: if `dtype` is not a float dtype.
        ValueError: if a size is below 1.

    Source:
        Feng, Tung, Ahmed, Bengio, Hajimirsadeghi, Were RNNs all we needed?, arXiv 2410.01201, 2024, in the
        form without logarithms.
    """
    n, m, dtype = size("hidden", hidden), size("inputs", inputs), float_dtype(dtype)
    glorot = jax.nn.initializers.glorot_uniform()

    def init(key):
        weights = [glorot(k, (m, n), dtype) for k in jax.random.split(key)]
        return {"input": jnp.concatenate(weights, axis=1), "bias": jnp.zeros(2 * n, dtype)}

    def step(params, h, x):
        gate, candidate = jnp.split(x @ params["input"] + params["bias"], 2)  # (1)
        gate = jax.nn.sigmoid(gate)
        return (1 - gate) * h + gate * candidate  # (2)

    return Cell(
        init=init,
        initial_hidden=lambda: jnp.zeros(n, dtype),
        step=step,
        example_input=lambda: jnp.zeros(m, dtype),
    )
