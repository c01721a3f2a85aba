"""foretrace."""

from typing import Any

import jax
import jax.numpy as jnp
from rows import INPUTS, Contender, Row, looped

import foretrace as ft
from foretrace.learners import parse

NAME = PACKAGE = "foretrace"


def contenders(row: Row) -> dict[str, Contender]:
    """The learner in `ft.run_blocks`."""
    cell = getattr(ft.cells, row.cell)(hidden=row.units, inputs=INPUTS)
    choice = parse(row.method)
    learner, params = choice.build(cell), params_of(row)
    state = learner.init(jax.random.key(1), params, lanes=row.lanes)

    def add(total: Any, gradient: Any) -> Any:
        return jax.tree.map(jnp.add, total, gradient)

    def each(carry, state, x):
        params, total = carry
        if choice.spec.one_update:
            return carry, jnp.ones_like(state.hidden)
        return (params, add(total, learner.grad(params, state, state.hidden))), None

    def end(carry, state, credits):
        params, total = carry
        return (params, add(total, learner.sweep(params, state, credits))), None

    def program(carry, xs):
        (params, total), state = carry
        final = end if choice.spec.one_update else None
        carry, state, _ = ft.run_blocks(
            learner, (params, total), state, xs, each, final, params=lambda carry: carry[0]
        )
        return carry, state

    zero = jax.tree.map(jnp.zeros_like, params)
    return {NAME: looped(program, ((params, zero), state), row)}


def params_of(row: Row) -> Any:
    """Weights as large as those of a network that has learned; of cells without recurrence their own."""
    cell = getattr(ft.cells, row.cell)(hidden=row.units, inputs=INPUTS)
    params = cell.init(jax.random.key(0))
    if row.cell not in ("leaky", "rnn"):
        return params
    keys = iter(jax.random.split(jax.random.key(3), 3))
    return jax.tree.map(lambda a: jax.random.normal(next(keys), a.shape) * row.units**-0.5, params)
