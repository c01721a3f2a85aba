"""The recurrent highway layer of the KF-RTRL and OK papers."""

from typing import Any

import jax
import jax.numpy as jnp

from foretrace._types import Cell
from foretrace.cells._cell import affine, float_dtype, size


def highway(*, hidden: int, inputs: int, depth: int = 1, dtype: Any = jnp.float32) -> Cell:
    """A recurrent highway layer with coupled gate, whose only state is its n units.

        z, g = split(x @ input + h @ recurrent + bias)        (1)
        h' = f h + (1 - f) tanh(z / 2),  f = sigmoid(g)       (2)

    With depth > 1, `depth - 1` further micro-layers of the same form follow in the same step;
    each has its own recurrent weights and bias, and no input.

    Args:
        hidden: number of units, n.
        inputs: length of the input vector.
        depth: number of micro-layers in one step.
        dtype: float dtype of parameters, state and input.

    Returns:
        A cell with hidden state (n,) that starts at zero, and parameters `input` (inputs, 2n),
        `recurrent` (n, 2n) and `bias` (2n,), columns of z before columns of g; for depth > 1 also
        `deeper`, a tuple of `recurrent` and `bias` for each further micro-layer. All are drawn
        from N(0, 0.01^2), as in the papers. One group per micro-layer.

    Raises:
        TypeError: if `dtype` is not a float dtype.
        ValueError: if a size is below 1.

    Source:
        Zilly, Srivastava, Koutnik, Schmidhuber, Recurrent highway networks, ICML 2017; at depth 1
        as in Benzing et al., ICML 2019: the candidate is 2 sigmoid(z) - 1 = tanh(z / 2).
    """
    n, m, depth = size("hidden", hidden), size("inputs", inputs), size("depth", depth)
    dtype = float_dtype(dtype)

    def init(key):
        first, *others = jax.random.split(key, depth)
        params: dict[str, Any] = _normal(
            first, {"input": (m, 2 * n), "recurrent": (n, 2 * n), "bias": (2 * n,)}
        )
        if others:
            shapes = {"recurrent": (n, 2 * n), "bias": (2 * n,)}
            params["deeper"] = tuple(_normal(key, shapes) for key in others)
        return params

    def _normal(key, shapes):
        keys = jax.random.split(key, len(shapes))
        return {
            name: 0.01 * jax.random.normal(k, shape, dtype)
            for k, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    def step(params, h, x):
        h = _mix(affine(params, h, x), h)  # (1), (2)
        for layer in params.get("deeper", ()):
            h = _mix(h @ layer["recurrent"] + layer["bias"], h)
        return h

    return Cell(
        init=init,
        initial_hidden=lambda: jnp.zeros(n, dtype),
        step=step,
        example_input=lambda: jnp.zeros(m, dtype),
    )


def _mix(preact, h):
    z, g = jnp.split(preact, 2)
    f = jax.nn.sigmoid(g)
    return f * h + (1 - f) * jnp.tanh(z / 2)  # (2)
