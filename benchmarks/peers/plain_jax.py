"""The same written by hand in plain JAX: what a user would write for one method and one cell.

Beside the methods there is a floor, one read and one write of the numbers that a method carries.
"""

from typing import Any

import jax
import jax.numpy as jnp
from ours import params_of
from rows import INPUTS, LEAK, WINDOW, Contender, Row, looped

NAME = "plain JAX"
PACKAGE = "jax"


def contenders(row: Row) -> dict[str, Contender]:
    """The method written by hand, where it is here, and the floor."""
    those: dict[str, Contender] = {}
    if row.method in ("rflo", "eprop"):
        those[NAME] = _traces(row, units_last=True)
        those[f"{NAME}, transposed"] = _traces(row, units_last=False)
    if row.cell == "diagonal":
        those[NAME] = _complex_traces(row)
    if row.method.startswith("tbptt"):
        those[NAME] = _windows(row)
    carried = {"leaky": (row.units + INPUTS + 1, row.units), "diagonal": (INPUTS, row.units, 2)}.get(
        row.cell
    )
    if carried and row.method in ("rflo", "eprop", "rtrl"):
        those["one read, one write"] = _floor(row, carried)
    return those


def _floor(row: Row, shape: tuple[int, ...]) -> Contender:
    start = jnp.ones((row.lanes, *shape))
    return looped(
        lambda carry, xs: jax.lax.scan(lambda a, x: (0.9 * a + x[0, 0], None), carry, xs)[0], start, row
    )


def _traces(row: Row, units_last: bool) -> Contender:
    """RFLO of leaky units. The order of the trace's axes decides how fast XLA adds up lanes."""
    params, n = params_of(row), row.units
    units, fan_in = (2, 1) if units_last else (1, 2)  # axes of the trace, after the lanes

    def lane(params, hidden, trace, x):
        z = hidden @ params["recurrent"] + x @ params["input"] + params["bias"]
        factor = jnp.concatenate([hidden, x, jnp.ones(1)])
        out = jnp.tanh(z)
        hidden = (1 - LEAK) * hidden + LEAK * out
        new = jnp.expand_dims(factor, units - 1) * jnp.expand_dims(LEAK * (1 - out**2), fan_in - 1)
        return hidden, (1 - LEAK) * trace + new

    def step(carry, x):
        params, hidden, trace, total = carry
        hidden, trace = jax.vmap(lane, in_axes=(None, 0, 0, 0))(params, hidden, trace, x)
        gradient = jnp.sum(jnp.expand_dims(hidden, fan_in) * trace, axis=0)
        recurrent, inputs, bias = jnp.split(gradient, [n, n + INPUTS], axis=fan_in - 1)
        parts = {"recurrent": recurrent, "input": inputs, "bias": bias.reshape(n)}
        return (params, hidden, trace, jax.tree.map(jnp.add, total, parts)), None

    hidden = jnp.zeros((row.lanes, n))
    shape = (n + INPUTS + 1, n) if units_last else (n, n + INPUTS + 1)
    zeros = jax.tree.map(lambda a: jnp.zeros_like(a if units_last else a.T), params)
    carry = params, hidden, jnp.zeros((row.lanes, *shape)), zeros
    return looped(lambda carry, xs: jax.lax.scan(step, carry, xs)[0], carry, row)


def _complex_traces(row: Row) -> Contender:
    """Exact RTRL of the linear recurrent unit, in complex numbers."""
    params, n = params_of(row), row.units
    weights = jax.lax.complex(params["input"][:, :n], params["input"][:, n:])
    params = {**{key: params[key] for key in ("decay", "angle", "scale")}, "input": weights}

    def moved(params, hidden, x):
        """The next state, for the derivatives by what belongs to a single unit."""
        turn = jnp.exp(-jnp.exp(params["decay"]) + 1j * jnp.exp(params["angle"]))
        return turn * hidden + jnp.exp(params["scale"]) * (x.astype(weights.dtype) @ params["input"])

    def lane(params, hidden, traces, x):
        turn = jnp.exp(-jnp.exp(params["decay"]) + 1j * jnp.exp(params["angle"]))
        single = {key: params[key] for key in ("decay", "angle", "scale")}
        units = {}
        for key in single:
            tangents = {k: jnp.ones(n) if k == key else jnp.zeros(n) for k in single}
            _, new = jax.jvp(lambda single: moved({**params, **single}, hidden, x), (single,), (tangents,))
            units[key] = turn * traces[key] + new
        scale = jnp.exp(params["scale"])
        units["input"] = turn * traces["input"] + x[:, None] * scale
        return moved(params, hidden, x), units

    def step(carry, x):
        params, hidden, traces, total = carry
        hidden, traces = jax.vmap(lane, in_axes=(None, 0, 0, 0))(params, hidden, traces, x)
        credit = jnp.conj(hidden)
        gradient = {
            key: jnp.sum((credit if trace.ndim == 2 else credit[:, None]) * trace, axis=0)
            for key, trace in traces.items()
        }
        return (params, hidden, traces, jax.tree.map(jnp.add, total, gradient)), None

    zero = {key: jnp.zeros(a.shape, weights.dtype) for key, a in params.items()}
    traces = jax.tree.map(lambda a: jnp.zeros((row.lanes, *a.shape), a.dtype), zero)
    carry = params, jnp.zeros((row.lanes, n), weights.dtype), traces, zero
    return looped(lambda carry, xs: jax.lax.scan(step, carry, xs)[0], carry, row)


def _windows(row: Row) -> Contender:
    """TBPTT: `jax.grad` of a scan over a window, one gradient per window."""
    params = params_of(row)

    def loss(params: Any, hidden: Any, xs: Any) -> Any:
        def step(hidden, x):
            z = hidden @ params["recurrent"] + x @ params["input"] + params["bias"]
            hidden = jnp.tanh(z)
            return hidden, jnp.sum(hidden)

        hidden, losses = jax.lax.scan(step, hidden, xs)
        return jnp.sum(losses), hidden

    def window(carry, xs):
        params, hidden, total = carry
        gradient, hidden = jax.grad(loss, has_aux=True)(params, hidden, xs)
        return (params, hidden, jax.tree.map(jnp.add, total, gradient)), None

    def program(carry, xs):
        return jax.lax.scan(window, carry, xs.reshape(-1, WINDOW, *xs.shape[1:]))[0]

    hidden = jnp.zeros((row.lanes, row.units))
    return looped(program, (params, hidden, jax.tree.map(jnp.zeros_like, params)), row)
