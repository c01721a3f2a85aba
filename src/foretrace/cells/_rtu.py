"""The recurrent trace unit: the linear recurrent unit in real numbers, with or without a nonlinearity."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from foretrace._types import Cell
from foretrace.cells._cell import float_dtype, size
from foretrace.cells._diagonal import normaliser, spectrum, turn


def rtu(
    *,
    hidden: int,
    inputs: int,
    activation: Callable[[Any], Any] | None = None,
    radius: tuple[float, float] = (0.0, 1.0),
    phase: float = 6.28,
    dtype: Any = jnp.float32,
) -> Cell:
    """The recurrent trace unit (RTU): n pairs of numbers that decay and turn, each pair on its own.

        r = exp(-exp(decay)),  theta = exp(angle)                                     (1)
        c' = f(r cos(theta) c - r sin(theta) s + sqrt(1 - r^2) (x @ input)_c)         (2)
        s' = f(r sin(theta) c + r cos(theta) s + sqrt(1 - r^2) (x @ input)_s)         (3)

    The state is [c; s]. Without f this is `diagonal` with the scale of its input tied to r, and a
    readout must bring the nonlinearity.

    Args:
        hidden: number of pairs, n; the state has 2n floats.
        inputs: length of the input vector.
        activation: f, elementwise, such as `jnp.tanh` or `jax.nn.relu`; none by default.
        radius: least and largest r at the start.
        phase: largest theta at the start, in radians.
        dtype: float dtype of parameters, state and input.

    Returns:
        A cell with hidden state (2n,) that starts at zero, and parameters `decay` and `angle` (n,), which
        belong to one pair each and are tracked exactly, and `input` (inputs, 2n), columns of c before
        those of s, N(0, 1 / inputs). r^2 and theta are drawn uniformly. One group.

    Raises:
        TypeError: if `dtype` is not a float dtype.
        ValueError: if a size is below 1, or not 0 <= least < largest <= 1, or not phase > 0.

    Source:
        Elelimy, White, Bowling, White, Real-time recurrent learning using trace units in reinforcement
        learning, NeurIPS 2024. Their linear unit applies f to what it hands on, not to its state: that
        belongs to the readout here.
    """
    n, m, dtype = size("hidden", hidden), size("inputs", inputs), float_dtype(dtype)
    draw = spectrum(n, radius, phase, dtype)

    def init(key):
        spectrum_key, input_key = jax.random.split(key)
        decay, angle = draw(spectrum_key)
        weights = jax.random.normal(input_key, (m, 2 * n), dtype) / jnp.sqrt(jnp.asarray(m, dtype))
        return {"decay": decay, "angle": angle, "input": weights}

    def step(params, h, x):
        scale = normaliser(params["decay"])
        u, v = jnp.split(x @ params["input"], 2)
        c, s = turn(params, h)  # (1)
        out = jnp.concatenate([c + scale * u, s + scale * v])  # (2), (3)
        return out if activation is None else activation(out)

    return Cell(
        init=init,
        initial_hidden=lambda: jnp.zeros(2 * n, dtype),
        step=step,
        example_input=lambda: jnp.zeros(m, dtype),
    )
