"""The linear recurrent unit: a diagonal recurrence of complex numbers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from foretrace._checks import UserError
from foretrace._types import Cell
from foretrace.cells._cell import float_dtype, size
from foretrace.structure._find import at_least_float32


def diagonal(
    *,
    hidden: int,
    inputs: int,
    radius: tuple[float, float] = (0.0, 1.0),
    phase: float = 6.28,
    dtype: Any = jnp.float32,
) -> Cell:
    """The linear recurrent unit (LRU): n complex numbers that decay and turn, each on its own.

        r = exp(-exp(decay)),  theta = exp(angle)               (1)
        u + i v = exp(scale) (x @ W),  W complex                (2)
        c' + i s' = r (cos theta + i sin theta) (c + i s) + u + i v   (3)

    The state is [c; s], real parts before imaginary ones, and linear in the past: put a nonlinear
    readout on it. r < 1 whatever the parameters are.

    Args:
        hidden: number of complex units, n; the state has 2n floats.
        inputs: length of the input vector.
        radius: least and largest r at the start.
        phase: largest theta at the start, in radians.
        dtype: float dtype of parameters, state and input.

    Returns:
        A cell with hidden state (2n,) that starts at zero, and parameters `decay`, `angle` and `scale`
        (n,), which belong to one unit each and are tracked exactly, and `input` W (inputs, 2n), real
        parts before imaginary ones, N(0, 1 / (2 inputs)). r^2 is drawn uniformly, theta too, and
        exp(scale) starts at sqrt(1 - r^2), so that the state starts at the size of the input. One group.

    Raises:
        TypeError: if `dtype` is not a float dtype.
        ValueError: if a size is below 1, or not 0 <= least < largest <= 1, or not phase > 0.

    Source:
        Orvieto et al., Resurrecting recurrent neural networks for long sequences, ICML 2023, without the
        output map, which is a readout here; trained online by Zucchet et al., NeurIPS 2023.
    """
    n, m, dtype = size("hidden", hidden), size("inputs", inputs), float_dtype(dtype)
    draw = spectrum(n, radius, phase, dtype)

    def init(key):
        spectrum_key, input_key = jax.random.split(key)
        decay, angle = draw(spectrum_key)
        weights = jax.random.normal(input_key, (m, 2 * n), dtype) / jnp.sqrt(jnp.asarray(2 * m, dtype))
        scale = jnp.log(normaliser(decay))
        return {"decay": decay, "angle": angle, "scale": scale, "input": weights}

    def step(params, h, x):
        u, v = jnp.split(x @ params["input"], 2)
        scale = jnp.exp(params["scale"])
        c, s = turn(params, h)
        return jnp.concatenate([c + scale * u, s + scale * v])  # (2), (3)

    return Cell(
        init=init,
        initial_hidden=lambda: jnp.zeros(2 * n, dtype),
        step=step,
        example_input=lambda: jnp.zeros(m, dtype),
    )


def spectrum(n: int, radius: tuple[float, float], phase: float, dtype: Any) -> Callable[[Any], tuple]:
    """`(key) -> (decay, angle)`, (n,) each, with r^2 uniform between the squared radii and theta too."""
    low, high = radius
    if not 0 <= low < high <= 1:
        raise UserError(
            f"radius must be (least, largest) with 0 <= least < largest <= 1; got {radius}; "
            "moduli near 1 remember longest, (0.9, 0.999) is usual for long streams."
        )
    if not phase > 0:
        raise UserError(f"phase must be > 0; got {phase}; 6.28 draws angles from the whole circle.")

    def draw(key):
        radius_key, phase_key = jax.random.split(key)
        wide = at_least_float32(dtype)  # a narrower one has few numbers near 1
        tiny = float(jnp.finfo(wide).eps)
        # Away from both ends, where the logarithms are infinite.
        square = low**2 + (high**2 - low**2) * jax.random.uniform(radius_key, (n,), wide)
        decay = jnp.log(-jnp.log(jnp.clip(square, tiny, 1 - tiny)) / 2)
        angle = jnp.log(phase * jax.random.uniform(phase_key, (n,), wide, tiny))
        return decay.astype(dtype), angle.astype(dtype)

    return draw


def turn(params: dict[str, Any], h: Any) -> tuple[Any, Any]:
    """The first term of (3), real and imaginary."""
    r, theta = jnp.exp(-jnp.exp(params["decay"])), jnp.exp(params["angle"])  # (1)
    cosine, sine = r * jnp.cos(theta), r * jnp.sin(theta)
    c, s = jnp.split(h, 2)
    return cosine * c - sine * s, cosine * s + sine * c


def normaliser(decay: Any) -> Any:
    """sqrt(1 - r^2), also where r is nearly 1."""
    return jnp.sqrt(-jnp.expm1(-2 * jnp.exp(decay)))
