"""Pairs of rows as complex numbers, against matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace.learners._engine._pairs import as_numbers, find_turn, turned
from foretrace.structure._sparsity import find_sparsity, sets_within
from oracles import (
    assert_close,
    draw,
    exact,
    precision,
    quick_compilation,  # noqa: F401
    run,
    stream,
    user_cell,
)


@pytest.mark.parametrize("is_turn", [False, True])
def test_a_matrix_times_a_pair_is_the_same_of_the_number(x64, is_turn):
    matrix = jax.random.normal(jax.random.key(0), (2, 2, 5))
    if is_turn:
        p, r = matrix[0, 0], matrix[1, 0]
        matrix = jnp.stack([jnp.stack([p, -r]), jnp.stack([r, p])])
    rows = jax.random.normal(jax.random.key(1), (2, 3, 4, 5))
    expected = as_numbers(jnp.einsum("ijg,jcfg->icfg", matrix, rows))
    np.testing.assert_allclose(turned(matrix, as_numbers(rows), is_turn), expected, rtol=1e-12)


def mirrored_step(p, h, x):
    """A complex number that turns, whose second input enters with the other sign."""
    c, s = jnp.split(h, 2)
    u, v = jnp.split(x @ p["input"], 2)
    turn = jnp.exp(-(p["decay"] ** 2))
    return jnp.concatenate([turn * c - 0.3 * s + u, 0.3 * c + turn * s - v])


def bent_step(p, h, x):
    """Alike for positive states, and no turn."""
    return jax.nn.relu(mirrored_step(p, h, x))


def pairs(step):
    return user_cell(step, {"input": (3, 8), "decay": (4,)}, hidden=8, inputs=3)


def built_in(name, **options):
    return getattr(ft.cells, name)(hidden=4, inputs=3, dtype=precision(), **options)


TURNS = {
    "diagonal": (lambda: built_in("diagonal"), 1),
    "rtu": (lambda: built_in("rtu"), 1),
    "rtu of tanh": (lambda: built_in("rtu", activation=jnp.tanh), 0),
    "rtu of relu": (lambda: built_in("rtu", activation=jax.nn.relu), 0),
    "mirrored": (lambda: pairs(mirrored_step), -1),
    "bent": (lambda: pairs(bent_step), 0),
    "elstm": (lambda: built_in("elstm"), 0),
}


@pytest.mark.parametrize("name", TURNS)
def test_turns_are_found_where_they_hold_for_all_numbers(x64, name):
    make, turn = TURNS[name]
    cell = make()
    structure = ft.structure_of(cell, draw(cell))
    sets = sets_within(structure, find_sparsity(structure), None)
    assert find_turn(structure, 0, sets[0]) == turn


@pytest.mark.parametrize("name", ["rtu of tanh", "rtu of relu", "mirrored", "bent"])
def test_gradients_are_exact_with_and_without_a_turn(x64, name):
    cell = TURNS[name][0]()
    params, (xs, credits) = draw(cell), stream(cell, 6, 2)
    gradients, *_ = run(ft.rtrl(cell), cell, params, xs, credits, lanes=2)
    for lane in range(2):
        part, *_ = run(ft.rtrl(cell), cell, params, xs[:, lane], credits[:, lane])
        assert_close(part, exact(cell, params, xs[:, lane], credits[:, lane]))
        gradients = jax.tree.map(jnp.subtract, gradients, part)
    assert_close(gradients, jax.tree.map(jnp.zeros_like, gradients), 1e-9)


@pytest.mark.parametrize("lanes", [1, 12])
def test_a_step_moves_the_pairs_where_they_lie(lanes):
    """A copy of the past would double the memory that a step touches."""
    cell = ft.cells.diagonal(hidden=16, inputs=5)
    learner, params = ft.rtrl(cell), cell.init(jax.random.key(0))
    state = learner.init(jax.random.key(1), params, lanes=lanes)

    def each(total, state, x):
        return jax.tree.map(jnp.add, total, learner.grad(params, state, state.hidden)), None

    def run_many(total, state, xs):
        return ft.run_blocks(learner, total, state, xs, each, params=lambda carry: params)

    total, xs = jax.tree.map(jnp.zeros_like, params), jnp.ones((30, lanes, 5))
    program = jax.jit(run_many, donate_argnums=(0, 1)).lower(total, state, xs).compile().as_text()
    past = max(state.past.parts, key=jnp.size)
    assert f"c64[{','.join(map(str, past.shape))}]" in program
    copies = [line for line in program.splitlines() if f"c64[{','.join(map(str, past.shape))}]" in line]
    assert not [line for line in copies if " copy(" in line]
