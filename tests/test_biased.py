"""Learners that keep a part of the influence: each equals a brute-force computation of what it defines."""

import jax
import jax.numpy as jnp
import pytest

import foretrace as ft
from foretrace.cells._lstm import LSTMHidden
from oracles import (
    CELLS,
    assert_close,
    draw,
    quick_compilation,  # noqa: F401
    run,
    stream,
    user_cell,
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
    assert_close(gradients, jax.tree.map(lambda a: jnp.zeros((STEPS, *a.shape)), params), 0.0)
    *_, exact = run(ft.rtrl(cell), cell, params, xs, credits, lanes=2)
    assert_close(state.hidden, exact.hidden, 1e-12)
    swept = ft.frozen(cell).sweep(params, state, credits[:1])
    assert_close(swept, jax.tree.map(jnp.zeros_like, params), 0.0)


# Local learners: the state Jacobian without the weights, written by hand for each cell.


def leaky_step(p, h, x, others=None):
    """`others` is what the weights see of the state, for a derivative beside them."""
    others = h if others is None else others
    return 0.8 * h + 0.2 * jnp.tanh(p["w"] @ others + p["v"] @ x + p["b"])


def leaky():
    return user_cell(leaky_step, {"w": (3, 3), "v": (3, 2), "b": (3,)})


def adaptive_step(p, h, x, others=None):
    """Two numbers per unit: a membrane and a slow threshold, which the membrane feeds."""
    others = h if others is None else others
    z = p["w"] @ jnp.tanh(others["v"] - others["a"]) + p["u"] @ x
    a = 0.9 * h["a"] + jax.nn.sigmoid(p["rise"]) * jnp.tanh(h["v"])
    return {"v": 0.7 * h["v"] - 0.3 * h["a"] + z, "a": a}


def adaptive():
    shapes = {"w": (3, 3), "u": (3, 2), "rise": (3,)}
    return user_cell(adaptive_step, shapes, hidden={"v": 3, "a": 3})


def beside(step):
    """The same step with its recurrent weights blind to the derivative of the state."""
    return lambda p, h, x: step(p, h, x, jax.lax.stop_gradient(h))


def of_built_in(name):
    """The same for a built-in cell: what its weights see is held fixed."""

    def lstm(p, h, x):
        i, f, g, o = jnp.split(x @ p["input"] + jax.lax.stop_gradient(h.h) @ p["recurrent"] + p["bias"], 4)
        c = jax.nn.sigmoid(f) * h.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return LSTMHidden(c, jax.nn.sigmoid(o) * jnp.tanh(c))

    def highway(p, h, x):
        z, g = jnp.split(x @ p["input"] + jax.lax.stop_gradient(h) @ p["recurrent"] + p["bias"], 2)
        return jax.nn.sigmoid(g) * h + jax.nn.sigmoid(-g) * jnp.tanh(z / 2)

    return {"lstm": lstm, "highway": highway}[name]


LOCAL = {
    "leaky": (leaky, beside(leaky_step)),
    "adaptive": (adaptive, beside(adaptive_step)),
    "lstm": (CELLS["lstm"], of_built_in("lstm")),
    "highway": (CELLS["highway"], of_built_in("highway")),
}


def traces(cell, blind, params, xs, credits):
    """Gradients of trace <- d blind / d hidden trace + d step / d params, by brute force."""
    weights, tree = jax.flatten_util.ravel_pytree(params)
    hidden, unravel = jax.flatten_util.ravel_pytree(cell.initial_hidden())

    def flat(step):
        return lambda w, h, x: jax.flatten_util.ravel_pytree(step(tree(w), unravel(h), x))[0]

    def one(carry, inputs):
        hidden, trace = carry
        x, credit = inputs
        own = jax.jacobian(flat(blind), argnums=1)(weights, hidden, x)
        trace = own @ trace + jax.jacobian(flat(cell.step))(weights, hidden, x)
        gradient = tree(jax.flatten_util.ravel_pytree(credit)[0] @ trace)
        return (flat(cell.step)(weights, hidden, x), trace), gradient

    start = hidden, jnp.zeros((hidden.size, weights.size))
    return jax.jit(lambda: jax.lax.scan(one, start, (xs, credits))[1])()


@pytest.mark.parametrize(
    ("name", "cell_name"),
    [("rflo", "leaky"), ("rflo", "highway"), ("eprop", "leaky"), ("eprop", "lstm"), ("eprop", "adaptive")],
)
def test_a_trace_follows_its_own_unit_alone(x64, name, cell_name):
    make, blind = LOCAL[cell_name]
    cell = make()
    params, (xs, credits) = draw(cell), stream(cell, STEPS)
    gradients, *_ = run(getattr(ft, name)(cell), cell, params, xs, credits)
    assert_close(gradients, traces(cell, blind, params, xs, credits))


def test_a_trace_needs_the_memory_of_its_weights():
    cell = leaky()
    state = jax.eval_shape(lambda key: ft.rflo(cell).init(key, draw(cell)), jax.random.key(0))
    assert sum(part.size for part in state.past.parts) == 3 * 3 + 3 * 2 + 3


@pytest.mark.parametrize(
    ("name", "cell", "message"),
    [
        ("rflo", CELLS["lstm"], r"^rflo needs units of one number, .*; got units of 2; use eprop\(cell\)"),
        ("rflo", CELLS["gru"], r"^rflo needs every parameter to act on one unit .*; got 'reset\."),
        (
            "eprop",
            CELLS["gru"],
            r"^eprop needs every parameter to act on one unit .*use snap\(cell, order=1\)",
        ),
    ],
)
def test_cells_whose_units_are_not_their_own_are_refused(name, cell, message):
    cell = cell()
    with pytest.raises(ValueError, match=message):
        getattr(ft, name)(cell).init(jax.random.key(0), draw(cell))


def test_a_matrix_that_does_not_factorise_is_refused():
    cell = user_cell(lambda p, h, x: 0.9 * h + jnp.eye(5) * p["w"] @ h, {"w": (5, 5)}, hidden=5)
    with pytest.raises(ValueError, match=r"^rflo needs every matrix of the cell to factorise; got 'w'"):
        ft.rflo(cell).init(jax.random.key(0), draw(cell))


def test_credit_returns_through_the_random_feedback_alone(x64):
    cell = leaky()
    params, (xs, _) = draw(cell), stream(cell, STEPS)
    rng = jax.random.split(jax.random.key(3), 3)
    weights, feedback = (jax.random.normal(k, (3, 2)) for k in rng[:2])
    targets = jax.random.normal(rng[2], (STEPS, 2))
    step = ft.online(ft.rflo(cell))

    def loss(params, weights, state, x, y):
        hidden, state = step(params, state, x)
        return 0.5 * jnp.sum((ft.random_feedback(hidden, weights, feedback) - y) ** 2), (state, hidden)

    state, got, errors, readout = ft.rflo(cell).init(jax.random.key(0), params), [], [], []
    grad = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    for x, y in zip(xs, targets, strict=True):
        (found, of_weights), (state, hidden) = grad(params, weights, state, x, y)
        got.append(found)
        errors.append(hidden @ weights - y)
        readout.append((of_weights, jnp.outer(hidden, errors[-1])))
    expected = traces(cell, LOCAL["leaky"][1], params, xs, jnp.stack(errors) @ feedback.T)
    assert_close(jax.tree.map(lambda *leaves: jnp.stack(leaves), *got), expected)
    for found, exact in readout:
        assert_close(found, exact)
