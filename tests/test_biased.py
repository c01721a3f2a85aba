"""Learners that keep a part of the influence: each equals a brute-force computation of what it defines."""

import jax
import jax.numpy as jnp
import pytest

import foretrace as ft
from oracles import (
    CELLS,
    assert_close,
    draw,
    quick_compilation,  # noqa: F401
    run,
    stream,
)

STEPS = 6


def at(tree, i):
    return jax.tree.map(lambda a: a[i], tree)


@pytest.mark.parametrize("cell_name", ["gru", "gain"])
def test_immediate_is_the_gradient_of_one_step(x64, cell_name):
    cell = CELLS[cell_name]()
    params, (xs, credits) = draw(cell), stream(cell, STEPS)
    gradients, *_ = run(ft.immediate(cell), cell, params, xs, credits)
    hidden = cell.initial_hidden()
    for t in range(STEPS):
        _, pull = jax.vjp(lambda p, h=hidden, t=t: cell.step(p, h, at(xs, t)), params)
        assert_close(at(gradients, t), pull(at(credits, t))[0])
        hidden = cell.step(params, hidden, at(xs, t))


def test_frozen_has_no_gradient_and_the_hidden_state_of_the_cell(x64):
    cell = CELLS["rnn"]()
    params, (xs, credits) = draw(cell), stream(cell, STEPS, 2)
    gradients, _, state = run(ft.frozen(cell), cell, params, xs, credits, lanes=2)
    assert_close(gradients, jax.tree.map(lambda a: jnp.zeros((STEPS, *a.shape)), params), 0)
    *_, exact = run(ft.rtrl(cell), cell, params, xs, credits, lanes=2)
    assert_close(state.hidden, exact.hidden, 1e-12)
    swept = ft.frozen(cell).phases.sweep(params, state, credits[:1])
    assert_close(swept, jax.tree.map(jnp.zeros_like, params), 0)
