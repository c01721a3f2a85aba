"""Learners from papers: unbiased over every draw, or what a loop by brute force gives."""

import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace import contrib
from oracles import (
    CELLS,
    assert_close,
    assert_unbiased,
    dot,
    draw,
    exact,
    influence,
    mean_influence,
    precision,
    quick_compilation,  # noqa: F401
    run,
    stream,
    user_cell,
)

ARTBP = sys.modules["foretrace.contrib.artbp"]

UNBIASED = {"r_kf_rtrl": contrib.r_kf_rtrl, "pre_uoro": contrib.pre_uoro}


def narrow(factory, **sizes):
    return factory(**({"hidden": 2, "inputs": 1} | sizes), dtype=precision())


def two_layers():
    """Two groups that feed one state, and a leaf beside them."""

    def step(p, h, x):
        return {
            "a": jnp.tanh(p["w"] @ h["a"] + p["v"] @ x),
            "b": p["d"] * h["b"] + jnp.tanh(p["u"] @ h["a"]),
        }

    shapes = {"w": (2, 2), "v": (2, 2), "u": (1, 2), "d": ()}
    return user_cell(step, shapes, hidden={"a": 2, "b": 1})


SMALL = {
    "rnn": lambda: narrow(ft.cells.rnn),
    "highway": lambda: narrow(ft.cells.highway),
    "layers": two_layers,
}


@pytest.mark.parametrize("name", UNBIASED)
@pytest.mark.parametrize("cell_name", ["highway", "layers"])
def test_mean_over_all_signs_is_rtrl(x64, cell_name, name):
    cell = SMALL[cell_name]()
    params, xs = draw(cell, scale=0.8), stream(cell, 3)[0]  # two reductions
    assert_unbiased(UNBIASED[name](cell), cell, params, xs)


@pytest.mark.parametrize("name", UNBIASED)
def test_mean_over_all_signs_is_rtrl_after_a_restart_inside_a_block(x64, name):
    cell = SMALL["rnn"]()
    params, xs = draw(cell, scale=0.8), stream(cell, 6)[0]
    assert_unbiased(UNBIASED[name](cell, block=2), cell, params, xs, restart_at=1)


@pytest.mark.parametrize("name", UNBIASED)
def test_signs_that_are_not_random_are_caught(x64, name):
    cell = SMALL["highway"]()
    params, xs = draw(cell, scale=0.8), stream(cell, 3)[0]
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_unbiased(UNBIASED[name](cell), cell, params, xs, every=lambda count: jnp.ones((1, count)))


@pytest.mark.parametrize("name", UNBIASED)
def test_a_cell_of_elementwise_parameters_alone_is_tracked_exactly(x64, name):
    cell = user_cell(lambda p, h, x: jax.nn.sigmoid(p["d"]) * h + x, {"d": (3,)}, inputs=3)
    params, (xs, credits) = draw(cell), stream(cell, 5)
    gradients, *_ = run(UNBIASED[name](cell), cell, params, xs, credits)
    assert_close(gradients, exact(cell, params, xs, credits))


@pytest.mark.parametrize("name", UNBIASED)
def test_float32_is_unbiased_and_finite_with_zero_tiny_and_huge_factors(name):
    cell = user_cell(lambda p, h, x: 0.5 * h + x[1] * (p["w"] @ x[:1]), {"w": (2, 1)}, hidden=2)
    xs = jnp.array([[1e12, 1], [1, 0], [0, 1], [1e-12, 1], [1, 1e12], [1, 1]])
    assert_close(
        mean_influence(UNBIASED[name](cell), cell, draw(cell), xs), influence(cell, draw(cell), xs), 1e-5
    )


# ARTBP, over every pattern of stops.


def test_mean_over_all_stops_is_rtrl(x64, monkeypatch):
    """Lane by lane; the ring has room for all that there is to know at the end of the stream."""
    cell, steps = CELLS["gru"](), 6
    params, (xs, credits) = draw(cell), stream(cell, steps)
    learner = contrib.artbp(cell, length=3, capacity=steps)
    patterns = jnp.array(list(itertools.product((False, True), repeat=steps)))
    weights = jnp.prod(jnp.where(patterns, 1 / 3, 2 / 3), axis=1)

    def gradients(pattern):
        """A stop is the same for all lanes here, and there is one."""
        state, found = learner.init(jax.random.key(0), params), []
        for stop, x, credit in zip(pattern, xs, credits, strict=True):
            with monkeypatch.context() as patch:
                patch.setattr(ARTBP, "random_stops", lambda *args, stop=stop: stop[None])
                state, _ = learner.step(params, state, x)
            found.append(learner.grad(params, state, credit))
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    mean = jax.jit(
        lambda: jax.tree.map(lambda a: jnp.tensordot(weights, a, 1), jax.vmap(gradients)(patterns))
    )
    assert_close(mean(), exact(cell, params, xs, credits))


def test_credit_beyond_the_capacity_is_dropped_and_the_rest_is_weighted(x64, monkeypatch):
    cell, steps = CELLS["rnn"](), 7
    params, (xs, credits) = draw(cell), stream(cell, steps)
    monkeypatch.setattr(ARTBP, "random_stops", lambda key, lanes, probability: jnp.zeros(lanes, bool))
    gradients, info, _ = run(contrib.artbp(cell, length=4, capacity=3), cell, params, xs, credits)
    assert info.reach.tolist() == [1, 2, 3, 3, 3, 3, 3]
    hidden = [cell.initial_hidden()]
    for x in xs:
        hidden.append(cell.step(params, hidden[-1], x))
    for t in range(steps):
        want = jax.tree.map(jnp.zeros_like, params)
        for age in range(min(t + 1, 3)):

            def ending(params, age=age, t=t):  # the step of that age alone with these parameters
                h = cell.step(params, hidden[t - age], xs[t - age])
                for later in range(t - age + 1, t + 1):
                    h = cell.step(jax.lax.stop_gradient(draw(cell)), h, xs[later])
                return dot(credits[t], h)

            part = jax.grad(ending)(params)
            want = jax.tree.map(lambda a, b, age=age: a + b / (3 / 4) ** age, want, part)
        assert_close(jax.tree.map(lambda a, t=t: a[t], gradients), want)


def test_lanes_stop_on_their_own_and_as_often_as_they_should():
    cell = SMALL["rnn"]()
    learner, params = contrib.artbp(cell, length=4), draw(cell)
    state = learner.init(jax.random.key(0), params, 50)
    step = lambda state, x: learner.step(params, state, x)  # noqa: E731
    _, info = jax.jit(lambda state: jax.lax.scan(step, state, jnp.ones((200, 50, 1))))(state)
    stops = np.asarray(info.reach[1:] == 1)
    np.testing.assert_allclose(stops.mean(), 1 / 4, atol=0.02)
    assert np.abs(np.corrcoef(stops.T) - np.eye(50)).max() < 0.35
    assert info.reach.max() <= 32
