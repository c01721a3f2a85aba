"""The gated trace unit: a recurrent trace unit whose clock runs as fast as the input says."""

from typing import Any

import jax
import jax.numpy as jnp

from foretrace._types import Cell
from foretrace.cells._cell import float_dtype, size
from foretrace.cells._diagonal import spectrum


def gtu(
    *,
    hidden: int,
    inputs: int,
    radius: tuple[float, float] = (0.0, 1.0),
    phase: float = 6.28,
    dtype: Any = jnp.float32,
) -> Cell:
    """The gated trace unit (GTU): n pairs of numbers that decay and turn, as fast as a gate lets them.

        g = sigmoid(x @ gate.input + gate.bias)                                       (1)
        r = exp(-exp(decay) g),  theta = exp(angle) g                                 (2)
        c' = r cos(theta) c - r sin(theta) s + sqrt(1 - r^2) (x @ input)_c            (3)
        s' = r sin(theta) c + r cos(theta) s + sqrt(1 - r^2) (x @ input)_s            (4)

    With g = 1 this is `rtu`. At g = 0 the pair stands still and takes nothing in. Linear in the past: a
    readout must bring the nonlinearity.

    Args:
        hidden: number of pairs, n; the state has 2n floats.
        inputs: length of the input vector.
        radius: least and largest r at the start, for g = 1.
        phase: largest theta at the start, in radians, for g = 1.
        dtype: float dtype of parameters, state and input.

    Returns:
        A cell with hidden state [c; s], (2n,), that starts at zero, and parameters `decay` and `angle`
        (n,), which belong to one pair each and are tracked exactly, `gate`, with `input` (inputs, n),
        Glorot uniform, and `bias` (n,), 2, and `input` (inputs, 2n), columns of c before those of s,
        N(0, 1 / inputs). r^2 and theta are drawn uniformly. Two groups.

    Raises:
        TypeError: if `dtype` is not a float dtype.
        ValueError: if a size is below 1, or not 0 <= least < largest <= 1, or not phase > 0.

    Source:
        Farr, Reddi, D'Eramo, Peters, arXiv 2605.24709, 2026, on the unit of Elelimy et al., NeurIPS 2024.
    """
    n, m, dtype = size("hidden", hidden), size("inputs", inputs), float_dtype(dtype)
    draw, glorot = spectrum(n, radius, phase, dtype), jax.nn.initializers.glorot_uniform()

    def init(key):
        spectrum_key, gate_key, input_key = jax.random.split(key, 3)
        decay, angle = draw(spectrum_key)
        gate = {"input": glorot(gate_key, (m, n), dtype), "bias": jnp.full(n, 2, dtype)}
        weights = jax.random.normal(input_key, (m, 2 * n), dtype) / jnp.sqrt(jnp.asarray(m, dtype))
        return {"decay": decay, "angle": angle, "gate": gate, "input": weights}

    def step(params, h, x):
        gate = jax.nn.sigmoid(x @ params["gate"]["input"] + params["gate"]["bias"])  # (1)
        rate, theta = jnp.exp(params["decay"]) * gate, jnp.exp(params["angle"]) * gate  # (2)
        r, scale = jnp.exp(-rate), jnp.sqrt(-jnp.expm1(-2 * rate))  # exact where r is nearly 1
        cosine, sine = r * jnp.cos(theta), r * jnp.sin(theta)
        (c, s), (u, v) = jnp.split(h, 2), jnp.split(x @ params["input"], 2)
        return jnp.concatenate(
            [cosine * c - sine * s + scale * u, sine * c + cosine * s + scale * v]
        )  # (3), (4)

    return Cell(
        init=init,
        initial_hidden=lambda: jnp.zeros(2 * n, dtype),
        step=step,
        example_input=lambda: jnp.zeros(m, dtype),
    )
