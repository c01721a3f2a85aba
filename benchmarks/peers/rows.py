"""The rows: a method, a cell of so many units, so many lanes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

INPUTS = 32  # length of an input
STEPS = 200  # in one compiled loop; a multiple of the window
WINDOW = 25  # of TBPTT
LEAK = 0.1  # of leaky units
SPAN = 19  # of pp_prop, a decay of 0.9


class Row(NamedTuple):
    """What is computed: `method` of `foretrace.learners.parse` on the cell of this name and size."""

    method: str
    cell: str
    units: int
    lanes: int


class Contender(NamedTuple):
    """`run(carry) -> carry` takes `steps` steps and waits for them."""

    run: Callable[[Any], Any]
    carry: Any
    steps: int


_KINDS = {
    "rflo": ("rflo", "leaky", ((64, 1), (256, 1), (64, 32), (256, 32))),
    "eprop": ("eprop", "leaky", ((64, 1), (256, 1), (256, 32))),
    "snap": ("snap:1", "leaky", ((64, 1), (256, 32))),
    "uoro": ("uoro", "leaky", ((64, 1), (256, 32))),
    "pp_prop": (f"pp_prop:{SPAN}", "leaky", ((64, 1), (256, 1), (64, 32), (256, 32))),
    "lru": ("rtrl", "diagonal", ((256, 1), (1024, 1), (256, 32), (1024, 32))),
    "rtu": ("rtrl", "rtu", ((1024, 32),)),
    "elstm": ("rtrl", "elstm", ((256, 1), (256, 32))),
    "sketch": ("sketch:16", "rnn", ((64, 32), (256, 1))),
    "tbptt": (f"tbptt:{WINDOW}", "rnn", ((64, 1), (64, 32), (256, 32))),
}
ROWS = {
    f"{name}-{units}-{lanes}": Row(method, cell, units, lanes)
    for name, (method, cell, sizes) in _KINDS.items()
    for units, lanes in sizes
}


def inputs_of(row: Row, steps: int) -> jax.Array:
    """Inputs of so many steps, (steps, lanes, INPUTS)."""
    return jax.random.normal(jax.random.key(2), (steps, row.lanes, INPUTS))


def looped(program: Callable[[Any, Any], Any], carry: Any, row: Row) -> Contender:
    """A contender from `program(carry, xs) -> carry`, which scans over xs (STEPS, lanes, INPUTS)."""
    xs = jnp.tile(inputs_of(row, WINDOW), (STEPS // WINDOW, 1, 1))
    compiled = jax.jit(program, donate_argnums=0).lower(carry, xs).compile()

    def run(carry: Any) -> Any:
        return jax.block_until_ready(compiled(carry, xs))

    return Contender(run, jax.tree.map(jnp.copy, carry), STEPS)


def differentiated(loss: Callable[[Any, Any, Any], Any], params: Any, state: Any, row: Row) -> Contender:
    """A contender from `loss(params, state, x) -> (loss, state)`, by its own rule of gradients."""

    def step(carry, x):
        params, state, total = carry
        gradient, state = jax.grad(loss, has_aux=True)(params, state, x)
        return (params, state, jax.tree.map(jnp.add, total, gradient)), None

    carry = params, state, jax.tree.map(jnp.zeros_like, params)
    return looped(lambda carry, xs: jax.lax.scan(step, carry, xs)[0], carry, row)
