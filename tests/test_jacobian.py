"""Jacobians from their non-zeros agree with Jacobians row by row, and with jax.jacobian."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace.structure._jacobian_rule import RowByRow
from foretrace.structure._jacobians import find_patterns, jacobian_rule

N, M = 5, 3


def plain(step):
    def init(key):
        w, u, b = jax.random.split(key, 3)
        return {
            "w": jax.random.normal(w, (M, 2 * N)),
            "u": jax.random.normal(u, (N, 2 * N)),
            "b": jax.random.normal(b, (2 * N,)),
        }

    return ft.cell(step, init=init, hidden=N, inputs=M)


def preact(p, h, x):
    return jnp.split(h @ p["u"] + x @ p["w"] + p["b"], 2)


def relu(p, h, x):
    a, b = preact(p, h, x)
    return 0.5 * h + jax.nn.relu(a) - jnp.tanh(b) * h  # at the point probed, some units are dead


def choice(p, h, x):
    a, b = preact(p, h, x)
    return jnp.where(a > 0, jnp.tanh(b), h * a)  # which branch counts differs from step to step


def crossed(p, h, x):
    a, b = preact(p, h, x)
    return jnp.concatenate([jnp.tanh(a[::-1])[:2], jnp.tanh(b)[2:]]) + h[::-1]


def scaled_input(p, h, x):
    a, b = preact(p, jnp.sin(h) * 2, x)
    return jnp.tanh(a) * b


STRUCTURED = {
    "rnn": lambda: ft.cells.rnn(hidden=N, inputs=M),
    "highway": lambda: ft.cells.highway(hidden=N, inputs=M),
    "lstm": lambda: ft.cells.lstm(hidden=N, inputs=M),
    **{step.__name__: (lambda step=step: plain(step)) for step in (relu, choice, crossed, scaled_input)},
}
BY_ROWS = {
    "gru": lambda: ft.cells.gru(hidden=N, inputs=M),
    "deep highway": lambda: ft.cells.highway(hidden=N, inputs=M, depth=2),
}


def point(cell, seed, structure=None):
    structure = structure or ft.structure_of(cell, cell.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(seed), 4)
    params = cell.init(keys[0])
    hidden, x = jax.random.normal(keys[1], (structure.state_size,)), jax.random.normal(keys[2], (M,))
    rows = jax.random.normal(keys[3], (4, structure.state_size))
    return structure, params, hidden, x, rows


@partial(jax.jit, static_argnums=(0, 4))
def whole(way, params, residuals, rows, cut=False):
    """Rows times the state Jacobian, every preact Jacobian and every immediate Jacobian."""
    weights, values = way.weights(params), way.values(params, residuals)
    state, slopes, dense = way.step(weights, values, rows, jnp.array(cut))
    return state, way.rights(slopes, rows), dense


@pytest.mark.parametrize("name", [*STRUCTURED, *BY_ROWS])
def test_jacobians_from_non_zeros_are_those_row_by_row(name):
    cell = (STRUCTURED | BY_ROWS)[name]()
    structure, *_ = point(cell, 0)
    ways = jacobian_rule(structure), RowByRow(structure)
    for seed in range(4):
        _, params, hidden, x, rows = point(cell, seed, structure)
        _, residuals = structure.forward(params, hidden, x)
        for q in (None, rows):
            found, expected = (whole(way, params, residuals, q) for way in ways)
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("name", [*STRUCTURED, *BY_ROWS])
def test_state_jacobian_is_jax_jacobian(name):
    cell = (STRUCTURED | BY_ROWS)[name]()
    structure, params, hidden, x, rows = point(cell, 1)
    _, residuals = structure.forward(params, hidden, x)
    step = lambda h: structure.ravel(cell.step(params, structure.unravel(h), x))  # noqa: E731
    expected = jax.jacobian(step)(hidden)
    found, _, _ = jacobian_rule(structure).jacobians(params, residuals)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    found, preacts, dense = whole(jacobian_rule(structure), params, residuals, rows)
    np.testing.assert_allclose(found, rows @ expected, atol=1e-4)
    cut = whole(jacobian_rule(structure), params, residuals, rows, cut=True)
    assert not jnp.any(cut[0])  # nothing comes from before, the step itself still counts
    for a, b in zip(jax.tree.leaves(cut[1:]), jax.tree.leaves((preacts, dense)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", STRUCTURED)
def test_a_cell_whose_preactivation_acts_elementwise_has_few_tangents(name):
    cell = STRUCTURED[name]()
    structure, *_ = point(cell, 0)
    patterns = find_patterns(structure)
    assert patterns is not None
    beside, factors, preacts, fixed = patterns
    # The factor of the weights is the state itself, but for one cell.
    assert any(fixed) == (name != "scaled_input")
    tangents = [len(p.seeds) for p in (beside, *factors.values(), *preacts)]
    assert max(tangents) <= 4


@pytest.mark.parametrize("name", BY_ROWS)
def test_a_cell_whose_preactivations_feed_each_other_goes_row_by_row(name):
    cell = BY_ROWS[name]()
    structure, *_ = point(cell, 0)
    assert find_patterns(structure) is None


@pytest.mark.parametrize("name", ["rnn", "highway", "lstm"])
def test_a_block_multiplies_by_whole_arrays_of_what_the_weights_read(name):
    cell = STRUCTURED[name]()
    structure, params, hidden, x, rows = point(cell, 0)
    way = jacobian_rule(structure)
    _, residuals = structure.forward(params, hidden, x)
    weights, values = way.weights(params), way.values(params, residuals)
    program = jax.make_jaxpr(way.step)(weights, values, rows, jnp.array(False)).jaxpr
    given = program.invars[: len(jax.tree.leaves(weights))]
    assert [v.aval.shape for v in given] == [(structure.state_size, N)] * {
        "rnn": 1,
        "highway": 2,
        "lstm": 4,
    }[name]
    parts = [e for e in program.eqns if e.primitive.name in ("slice", "dynamic_slice", "gather")]
    assert not [e for e in parts if e.invars[0] in given]
    (product,) = (e for e in program.eqns if e.primitive.name == "dot_general")
    assert product.outvars[0].aval.shape == (len(rows), N)  # of an LSTM's state, half
