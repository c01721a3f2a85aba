"""The continuous-time recurrent network, in steps of one."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from foretrace._checks import UserError
from foretrace._types import Cell
from foretrace.cells._cell import affine, dense, float_dtype, size


def leaky(
    *, hidden: int, inputs: int, time_constant: float | Sequence[float] = 10.0, dtype: Any = jnp.float32
) -> Cell:
    """Leaky tanh units: a continuous-time recurrent network after Euler's method.

        z = x @ input + h @ recurrent + bias                    (1)
        h' = (1 - 1 / tau) h + tanh(z) / tau                    (2)

    That is tau dh/dt = -h + tanh(z), in steps of one unit of time. With tau = 1 it is `rnn`.

    Args:
        hidden: number of units, n.
        inputs: length of the input vector.
        time_constant: tau in steps, for all units or one for each; a constant, not trained.
        dtype: float dtype of parameters, state and input.

    Returns:
        A cell with hidden state (n,) that starts at zero, and parameters `input` (inputs, n),
        Glorot uniform, `recurrent` (n, n), orthogonal, and `bias` (n,), zero. One group.

    Raises:
        TypeError: if `dtype` is not a float dtype.
        ValueError: if a size or a time constant is below 1, or there is not one for each unit.

    Source:
        As in Murray, Local online learning in recurrent networks with random feedback, eLife 2019.
    """
    n, m, dtype = size("hidden", hidden), size("inputs", inputs), float_dtype(dtype)
    tau = np.asarray(time_constant, dtype)
    if tau.shape not in ((), (n,)) or not np.all(tau >= 1):
        raise UserError(
            f"time_constant must be one number >= 1 or {n} of them; got {time_constant!r}; "
            "it is counted in steps, and with 1 it is an rnn."
        )

    def step(params, h, x):
        rate = jnp.asarray(1 / tau, dtype)
        return (1 - rate) * h + rate * jnp.tanh(affine(params, h, x))  # (1), (2)

    return Cell(
        init=lambda key: dense(key, m, n, 1, dtype),
        initial_hidden=lambda: jnp.zeros(n, dtype),
        step=step,
        example_input=lambda: jnp.zeros(m, dtype),
    )
