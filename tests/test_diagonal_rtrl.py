"""Exact RTRL where the recurrence is diagonal: the same gradient from the entries that are ever reached."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import foretrace as ft
from foretrace._types import at_phase
from foretrace.learners._engine._sparse import SparsePast
from foretrace.structure._sparsity import find_sparsity
from oracles import (
    CELLS,
    assert_close,
    draw,
    exact_lanes,
    precision,
    quick_compilation,  # noqa: F401
    run,
    stream,
    user_cell,
)

STEPS = 7


def gated_step(p, h, x):
    """An LSTM without weights between units: (c, h) per unit, one group and an elementwise leaf."""
    c, out = h["c"], h["h"]
    f, i, z = jnp.split(x @ p["input"] + p["own"] * jnp.concatenate([out, out, out]) + p["bias"], 3)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(z)
    return {"c": c, "h": jnp.tanh(c) + 0.1 * out}


def gated():
    shapes = {"input": (2, 12), "own": (12,), "bias": (12,)}
    return user_cell(gated_step, shapes, hidden={"c": 4, "h": 4})


def complex_step(p, h, x):
    """A complex unit written with complex numbers, and one parameter that all units share."""
    state = jax.lax.complex(h[:4], h[4:])
    turn = jnp.exp(jax.lax.complex(-jnp.exp(p["decay"]), p["angle"]))
    scale = p["scale"]
    state = turn * state + jax.lax.complex(scale * (x @ p["re"]), scale * (x @ p["im"]))
    return jnp.concatenate([state.real, state.imag])


def shared():
    shapes = {"decay": (4,), "angle": (4,), "scale": (), "re": (2, 4), "im": (2, 4)}
    return user_cell(complex_step, shapes, hidden=8)


def block_step(p, h, x):
    """A dense matrix inside each of four pairs."""
    pairs = jnp.einsum("bij,bj->bi", p["w"], h.reshape(4, 2)).ravel()
    return jnp.tanh(pairs + p["v"] @ x)


def blocks():
    return user_cell(block_step, {"w": (4, 2, 2), "v": (8, 2)}, hidden=8)


def built_in(name):
    return lambda: getattr(ft.cells, name)(hidden=4, inputs=2, dtype=precision())


DIAGONAL = {name: built_in(name) for name in ("diagonal", "rtu", "gtu", "elstm", "mingru")}
DIAGONAL |= {"gated": gated, "shared": shared, "blocks": blocks}
WIDTH = {"elstm": 1, "mingru": 1}  # entries of a unit


@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("name", DIAGONAL)
def test_gradients_are_those_of_the_unrolled_loss(x64, name, block):
    cell = DIAGONAL[name]()
    params, (xs, credits) = draw(cell), stream(cell, STEPS, 2)
    restart = jnp.zeros((STEPS, 2), bool).at[4, 0].set(True)
    gradients, _, state = run(ft.rtrl(cell, block=block), cell, params, xs, credits, None, 2, restart)
    assert isinstance(state.past, SparsePast)
    assert_close(gradients, exact_lanes(cell, params, xs, credits, restart))


@pytest.mark.parametrize("way", ["step", "phases", "block 3"])
@pytest.mark.parametrize("name", ["diagonal", "elstm", "gated", "rnn"])
def test_weights_that_change_at_every_step_are_each_steps_own(x64, name, way):
    """Against the recursion written out, influence' = state_jacobian influence + immediate_jacobian."""
    cell = (DIAGONAL | CELLS)[name]()
    start, (xs, credits) = draw(cell), stream(cell, STEPS, None)
    learner = ft.rtrl(cell, block=3 if way == "block 3" else 1)

    def update(params, gradient):
        return jax.tree.map(lambda p, g: p - 0.3 * jnp.tanh(g), params, gradient)

    def learn(carry, inputs):
        (params, state), (x, credit) = carry, inputs
        if way == "phases":
            state = learner.advance(params, at_phase(state, 0), x)
            gradient = learner.grad(params, state, credit)
            params = update(params, gradient)
            return (params, learner.end_block(params, state)[0]), gradient
        state, _ = learner.step(params, state, x)
        gradient = learner.grad(params, state, credit)
        return (update(params, gradient), state), gradient

    def written_out(carry, inputs):
        (params, hidden, influence), (x, credit) = carry, inputs
        flat, structure = ravel_pytree(params)
        _, back = ravel_pytree(hidden)

        def step(flat, hidden):
            return ravel_pytree(cell.step(structure(flat), back(hidden), x))[0]

        immediate, jacobian = jax.jacobian(step, (0, 1))(flat, ravel_pytree(hidden)[0])
        influence = jacobian @ influence + immediate
        gradient = structure(ravel_pytree(credit)[0] @ influence)
        return (update(params, gradient), cell.step(params, hidden, x), influence), gradient

    size, count = (ravel_pytree(tree)[0].size for tree in (cell.initial_hidden(), start))
    found = jax.jit(
        lambda: jax.lax.scan(learn, (start, learner.init(jax.random.key(0), start)), (xs, credits))[1]
    )()
    first = start, cell.initial_hidden(), jnp.zeros((size, count))
    assert_close(found, jax.jit(lambda: jax.lax.scan(written_out, first, (xs, credits))[1])())


@pytest.mark.parametrize("name", [name for name in DIAGONAL if name != "shared"])
def test_memory_is_that_of_the_parameters_times_the_size_of_a_unit(name):
    cell = DIAGONAL[name]()
    params = draw(cell)
    state = jax.eval_shape(lambda key: ft.rtrl(cell).init(key, params), jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    floats = sum(part.size * (1 + jnp.iscomplexobj(part)) for part in state.past.parts)
    # Of a complex number that turns, the second column is the first one, turned.
    spared = params["input"].size if name in ("diagonal", "rtu", "gtu") else 0
    assert floats == WIDTH.get(name, 2) * count - spared


@pytest.mark.parametrize("name", ["rnn", "lstm", "layers"])
def test_a_dense_recurrence_keeps_its_matrices(name):
    cell = CELLS[name]()
    state = jax.eval_shape(lambda key: ft.rtrl(cell).init(key, draw(cell)), jax.random.key(0))
    assert not isinstance(state.past, SparsePast)


@pytest.mark.parametrize("name", ["gated", "shared", "blocks"])
def test_the_non_zeros_are_those_of_the_jacobian(x64, name):
    cell = DIAGONAL[name]()
    structure = ft.structure_of(cell, draw(cell))
    reach, found = find_sparsity(structure), 0
    for seed in range(4):
        hidden, x = (jax.tree.map(lambda a: a[0], tree) for tree in stream(cell, 1, seed=seed)[::-1])
        flat = structure.ravel(hidden)
        params = draw(cell, seed)
        found += np.asarray(
            jax.jacobian(lambda h, p=params, x=x: structure.ravel(cell.step(p, structure.unravel(h), x)))(
                flat
            )
            != 0
        )
    np.testing.assert_array_equal(reach.state, found > 0)


def test_operations_grow_with_units_and_not_their_square():
    def operations(hidden):
        cell = ft.cells.elstm(hidden=hidden, inputs=8)
        learner, params = ft.rtrl(cell), cell.init(jax.random.key(0))
        state = learner.init(jax.random.key(1), params)

        def train(params, state, x):
            state, _ = learner.step(params, state, x)
            return learner.grad(params, state, state.hidden), state

        return jax.jit(train).lower(params, state, jnp.ones(8)).compile().cost_analysis()["flops"]

    assert operations(128) < 2.2 * operations(64)
