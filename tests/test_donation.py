"""A training loop may give away the memory of states and parameters: nothing that is held goes with it."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import foretrace as ft
from foretrace._types import Cell
from oracles import assert_close, quick_compilation  # noqa: F401


def rnn(p, h, x):
    return jnp.tanh(p["w"] @ h + x)


def held_by_a_function():
    params, hidden, x = {"w": jnp.eye(3)}, jnp.ones(3), jnp.ones(3)
    return ft.cell(rnn, init=lambda key: params, hidden=hidden, inputs=x)


def held_by_a_record():
    hidden, x = jnp.ones(3), jnp.ones(3)
    return Cell(lambda key: {"w": jnp.eye(3)}, lambda: hidden, rnn, lambda: x)


CELLS = {
    "function": held_by_a_function,
    "record": held_by_a_record,
    "built in": lambda: ft.cells.lstm(hidden=3, inputs=3),
    "stack": lambda: ft.cells.stack([held_by_a_function(), ft.cells.rnn(hidden=2, inputs=3)]),
    "equinox": lambda: ft.from_equinox(eqx.nn.LSTMCell(3, 3, key=jax.random.key(0))),
    "flax": lambda: ft.from_flax(nnx.GRUCell(3, 3, rngs=nnx.Rngs(0))),
    "flax made": lambda: ft.from_flax(functools.partial(nnx.LSTMCell, 3, 3)),
}
LEARNERS = {
    "rtrl": ft.rtrl,
    "uoro": ft.uoro,
    "ok": lambda cell: ft.ok(cell, rank=2, block=2),
    "tbptt": lambda cell: ft.tbptt(cell, window=2),
    "sketch": lambda cell: ft.sketch(cell, rank=2),
    "average": lambda cell: ft.average(ft.kf_rtrl(cell), 2),
    "artbp": lambda cell: ft.contrib.artbp(cell, length=2),
    "dni": ft.contrib.dni,
}


def train_twice(cell, learner, lanes):
    """Hidden states of two runs that begin alike, the second after the first gave its states away."""
    step = jax.jit(lambda p, s, x: learner.step(p, s, x)[0], donate_argnums=1)
    begin = jax.jit(learner.reset, donate_argnums=0)
    params, key, x = cell.init(jax.random.key(0)), jax.random.key(1), cell.example_input()
    again, x = jnp.array(True), x if lanes is None else jnp.repeat(x[None], lanes, axis=0)
    again = again if lanes is None else jnp.repeat(again, lanes)
    runs = []
    for _ in range(2):
        state = step(params, learner.init(key, params, lanes), x)
        state = step(params, begin(state, again), x)
        runs.append(jax.tree.map(np.array, state.hidden))
        learner.grad(params, state, state.hidden)
    cell.step(params, cell.initial_hidden(), cell.example_input())
    return runs


@pytest.mark.parametrize("name", CELLS)
def test_a_state_that_is_given_away_takes_nothing_of_the_cell_with_it(name):
    cell = CELLS[name]()
    first, second = train_twice(cell, ft.rtrl(cell), None)
    assert_close(first, second, 0)


@pytest.mark.parametrize("lanes", [None, 1])
@pytest.mark.parametrize("name", LEARNERS)
def test_a_state_that_is_given_away_takes_neither_key_nor_parameters_with_it(name, lanes):
    cell = held_by_a_function()
    if name == "dni":
        cell = ft.contrib.with_synthesizer(cell)
    with jax.debug_key_reuse(False):  # both runs begin with the same key
        first, second = train_twice(cell, LEARNERS[name](cell), lanes)
    assert_close(first, second, 0)


# A record of one's own functions hands out what these do.
@pytest.mark.parametrize("name", [name for name in CELLS if name != "record"])
def test_parameters_and_examples_that_are_given_away_are_copies(name):
    cell = CELLS[name]()
    for make in (lambda: cell.init(jax.random.key(0))), cell.initial_hidden, cell.example_input:
        expected = jax.tree.map(np.array, make())
        jax.tree.map(lambda a: a.delete(), make())
        assert_close(make(), expected, 0)


def test_an_array_of_its_owner_may_change_or_go():
    hidden, x = np.ones(3, np.float32), jnp.ones(3)
    cell = ft.cell(rnn, init=lambda key: {"w": jnp.eye(3)}, hidden=hidden, inputs=x)
    hidden[:] = 5
    x.delete()
    assert_close((cell.initial_hidden(), cell.example_input()), (jnp.ones(3), jnp.ones(3)), 0)


@pytest.mark.parametrize("lanes", [None, 2])
def test_restart_may_be_bools_of_any_kind(lanes):
    cell = held_by_a_function()
    kinds = [True, np.True_, np.array(True), jnp.array(True)]
    if lanes:
        kinds = [[True, False], np.array([True, False]), jnp.array([True, False])]
    for learner in ft.rtrl(cell), ft.ok(cell, rank=2), ft.average(ft.uoro(cell), 2):
        params = cell.init(jax.random.key(0))
        state = learner.init(jax.random.key(1), params, lanes)
        state, _ = learner.step(params, state, jnp.ones(3) if lanes is None else jnp.ones((lanes, 3)))
        states = [learner.reset(state, kind) for kind in kinds]
        for other in states[1:]:
            assert_close(jax.tree.leaves(other)[:-1], jax.tree.leaves(states[0])[:-1], 0)
        assert_close(states[0].hidden if lanes is None else states[0].hidden[0], jnp.ones(3), 0)


def test_a_restart_of_another_kind_or_shape_is_refused():
    cell = held_by_a_function()
    learner = ft.rtrl(cell)
    state = learner.init(jax.random.key(1), cell.init(jax.random.key(0)), 2)
    with pytest.raises(
        ValueError, match=r"^restart must have shape \(2,\); got \(\); give one for each lane"
    ):
        learner.reset(state, True)
    with pytest.raises(TypeError, match=r"^restart must be a bool array; got int32; compare it"):
        learner.reset(state, jnp.array([0, 1]))
