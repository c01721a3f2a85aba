"""Learners from papers: unbiased over every draw, or what a loop by brute force gives."""

import inspect
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace.learners import contrib
from foretrace.learners._kronecker import random_signs
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

ARTBP = sys.modules["foretrace.learners.contrib._artbp"]


def squared(tree):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))


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
    "layers": two_layers,
}


@pytest.mark.parametrize("name", UNBIASED)
def test_mean_over_all_signs_is_rtrl(x64, name):
    cell = SMALL["layers"]()
    params, xs = draw(cell, scale=0.8), stream(cell, 3)[0]  # two reductions
    assert_unbiased(UNBIASED[name](cell), cell, params, xs)


@pytest.mark.parametrize("name", UNBIASED)
def test_mean_over_all_signs_is_rtrl_after_a_restart_inside_a_block(x64, name):
    cell = SMALL["rnn"]()
    params, xs = draw(cell, scale=0.8), stream(cell, 6)[0]
    assert_unbiased(UNBIASED[name](cell, block=2), cell, params, xs, restart_at=1)


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


@pytest.mark.parametrize("name", ["artbp", "dni", "kernl", "pre_uoro", "r_kf_rtrl"])
def test_a_long_float32_run_stays_finite(name):
    cell = ft.cells.rnn(hidden=8, inputs=3)
    cell = contrib.with_synthesizer(cell) if name == "dni" else cell
    params, options = draw(cell, scale=0.3), {"length": 5} if name == "artbp" else {}
    learner = getattr(contrib, name)(cell, **options)

    @jax.jit
    def sizes(key):
        def step(state, key):
            x, credit = jax.random.normal(key, (2, 2, 8))
            state, _ = learner.step(params, state, x[:, :3])
            return state, squared(learner.grad(params, state, credit))

        first, second = jax.random.split(key)
        return jax.lax.scan(step, learner.init(first, params, 2), jax.random.split(second, 4000))[1]

    found = np.asarray(sizes(jax.random.key(0)))
    assert np.isfinite(found).all()
    # Noise neither grows with time nor dies out.
    early, late = found[100:2000].mean(), found[2000:].mean()
    assert early / 10 < late < 10 * early


# ARTBP, over every pattern of stops.


def test_mean_over_all_stops_is_rtrl(x64, monkeypatch):
    """Lane by lane; the ring has room for all that there is to know at the end of the stream."""
    cell, steps = CELLS["gain"](), 5
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


# KeRNL.


def test_kernl_is_its_equations(x64):
    cell, steps = CELLS["gain"](), 6
    params, (xs, credits) = draw(cell), stream(cell, steps)
    learner = contrib.kernl(cell, gamma=0.3, beta_rate=0.05, gamma_rate=0.02)
    state, hidden = learner.init(jax.random.key(0), params), cell.initial_hidden()
    trace = jax.tree.map(lambda a: jnp.zeros((3, *a.shape)), params)
    beta, gamma = jnp.eye(3), jnp.full(3, 0.3)
    delta = omega = slope = jnp.zeros(3)
    step, grad = jax.jit(learner.step), jax.jit(learner.grad)
    jacobians = jax.jit(jax.jacobian(cell.step, argnums=(0, 1)))
    for x, credit in zip(xs, credits, strict=True):
        xi = random_signs(jax.random.split(jax.random.clone(state.key))[1], 3, beta.dtype) / np.sqrt(3)
        immediate, jacobian = jacobians(params, hidden, x)
        decay = jnp.exp(-gamma)
        scaled = jax.tree.map(lambda a, d=decay: a * d.reshape(3, *[1] * (a.ndim - 1)), trace)
        trace = jax.tree.map(jnp.add, scaled, immediate)
        delta = jacobian @ delta + xi
        slope = decay * (slope - omega)
        omega = decay * omega + xi
        error = beta @ omega - delta
        beta, gamma = beta - 0.05 * jnp.outer(error, omega), gamma - 0.02 * slope * (beta.T @ error)
        hidden = cell.step(params, hidden, x)
        state, info = step(params, state, x)
        want = jax.tree.map(lambda a, signal=credit @ beta: jnp.tensordot(signal, a, 1), trace)
        assert_close(grad(params, state, credit), want)
        assert_close(info.error, jnp.linalg.norm(error) / jnp.linalg.norm(delta))
    assert_close((state.past.beta[0], state.past.gamma[0]), (beta, gamma))
    begun = learner.reset(state, jnp.array(True))
    assert squared(learner.grad(params, begun, credits[0])) == 0
    xi = random_signs(jax.random.split(jax.random.clone(begun.key))[1], 3, beta.dtype) / np.sqrt(3)
    after, _ = step(params, begun, xs[0])  # a fresh trace and perturbation, of a kernel that stays
    beta = beta - 0.05 * jnp.outer(beta @ xi - xi, xi)
    assert_close((after.past.beta[0], after.past.gamma[0]), (beta, gamma))
    fresh = jacobians(params, cell.initial_hidden(), xs[0])[0]
    assert_close(
        grad(params, after, credits[0]),
        jax.tree.map(lambda a: jnp.tensordot(credits[0] @ beta, a, 1), fresh),
    )


def test_kernl_finds_the_leaks_of_units_on_their_own_and_is_rtrl_then():
    leaks = np.float32([0.5, 0.8, 0.9])
    cell = user_cell(lambda p, h, x: jnp.asarray(leaks) * h + p["w"] @ x + p["b"], {"w": (3, 2), "b": (3,)})
    params, (xs, credits) = draw(cell), stream(cell, 12000)
    learner = contrib.kernl(cell)
    gradients, info, state = run(learner, cell, params, xs, credits)
    exactly, *_ = run(ft.rtrl(cell), cell, params, xs, credits)
    np.testing.assert_allclose(np.exp(-state.past.gamma[0]), leaks, atol=0.02)
    np.testing.assert_allclose(state.past.beta[0], np.eye(3), atol=0.02)
    wrong = [
        squared(jax.tree.map(lambda a, b, part=part: a[part] - b[part], gradients, exactly))
        for part in (slice(0, 500), slice(-500, None))
    ]
    assert wrong[1] < 1e-3 * squared(jax.tree.map(lambda a: a[-500:], exactly))
    assert wrong[1] < 0.02 * wrong[0]
    assert info.error[-500:].mean() < 0.05


def test_kernl_refuses_cells_whose_parameters_act_on_several_entries_at_once():
    shapes = {"w": (2, 2)}
    cell = user_cell(lambda p, h, x: jnp.repeat(jnp.tanh(p["w"] @ x), 2), shapes, hidden=4)
    with pytest.raises(ValueError, match=r"^kernl needs every parameter to act on one unit .*; got 'w'"):
        contrib.kernl(cell).init(jax.random.key(0), draw(cell))


# DNI.


def test_dni_is_its_equations(x64):
    cell = contrib.with_synthesizer(CELLS["gain"]())
    params, (xs, credits) = draw(cell), stream(cell, 5, 2)
    learner = contrib.dni(cell, every=3)
    state = learner.init(jax.random.key(0), params, 2)
    hidden = jax.vmap(lambda _: cell.initial_hidden())(jnp.arange(2))
    step, grad = jax.jit(learner.step), jax.jit(learner.grad)
    jacobians = jax.jit(jax.jacobian(cell.step, argnums=(0, 1)))

    def foretold(weights, h):
        return weights @ jnp.append(h, 1)

    for t, (x, credit) in enumerate(zip(xs, credits, strict=True)):
        params = params | {"synthesizer": params["synthesizer"] + 0.1 * t}  # as if it were learned
        copy = params["synthesizer"] if t % 3 == 0 else copy
        state, _ = step(params, state, x)
        want = jax.tree.map(jnp.zeros_like, params)
        for lane in range(2):
            before, now = hidden[lane], cell.step(params, hidden[lane], x[lane])
            immediate, jacobian = jacobians(params, before, x[lane])
            total = credit[lane] + foretold(params["synthesizer"], now)
            target = (credit[lane] + foretold(copy, now)) @ jacobian
            found = jax.tree.map(lambda a, total=total: jnp.tensordot(total, a, 1), immediate)
            of_map = jax.grad(lambda a, h=before, y=target: jnp.sum((foretold(a, h) - y) ** 2) / 2)(
                params["synthesizer"]
            )
            want = jax.tree.map(jnp.add, want, found | {"synthesizer": of_map})
            hidden = hidden.at[lane].set(now)
        assert_close(grad(params, state, credit), want)


def test_dni_learns_what_the_future_owes_and_its_mean_gradient_is_exact_then():
    """h' = R h + b + x with loss |h|^2 / 2 at every step: credit of the future is linear, and known."""
    recurrence = np.float32([[0.6, 0.3, 0.0], [-0.3, 0.6, 0.0], [0.0, 0.2, 0.5]])
    drive, lanes = np.float32([0.5, -0.3, 0.2]), 200
    plain = user_cell(lambda p, h, x: jnp.asarray(recurrence) @ h + p["b"] + x, {"b": (3,)}, inputs=3)
    cell = contrib.with_synthesizer(plain)
    params = {"cell": {"b": jnp.zeros(3)}, "synthesizer": jnp.zeros((3, 4))}
    learner = contrib.dni(cell)

    @jax.jit
    def learn(state, weights, key):
        def step(carry, inputs):
            state, weights, total = carry
            key, rate = inputs
            now = params | {"synthesizer": weights}
            x = jnp.asarray(drive)[None] + jax.random.normal(key, (lanes, 3))
            state, _ = learner.step(now, state, x)
            gradient = learner.grad(now, state, state.hidden)
            weights = weights - rate / lanes * gradient["synthesizer"]
            return (state, weights, total + gradient["cell"]["b"] / lanes), weights

        count = 3000
        rates = 0.1 / (1 + jnp.arange(count) / 100)
        start = state, weights, jnp.zeros(3)
        (state, _, total), seen = jax.lax.scan(step, start, (jax.random.split(key, count), rates))
        return state, jnp.mean(seen[count // 2 :], axis=0), total / count

    first, second, third = jax.random.split(jax.random.key(0), 3)
    state, weights, _ = learn(learner.init(first, params, lanes), params["synthesizer"], second)
    powers = [np.linalg.matrix_power(recurrence, k) for k in range(200)]
    future = sum(power.T @ power for power in powers[1:])
    bias = sum(powers[k].T @ sum(powers[:k]) @ drive for k in range(1, 200))
    np.testing.assert_allclose(weights[:, :3], future, atol=0.03)
    np.testing.assert_allclose(weights[:, 3], bias, atol=0.05)
    *_, mean = learn(state, weights, third)
    inverse = np.linalg.inv(np.eye(3) - recurrence)
    np.testing.assert_allclose(mean, inverse.T @ inverse @ drive, atol=0.05)


# Arguments.

# Beneath the types that run in the tests only.
artbp, dni, kernl, pre_uoro, r_kf_rtrl = map(
    inspect.unwrap, (contrib.artbp, contrib.dni, contrib.kernl, contrib.pre_uoro, contrib.r_kf_rtrl)
)


def synthesized():
    return contrib.with_synthesizer(SMALL["rnn"]())


@pytest.mark.parametrize(
    ("call", "name", "remedy"),
    [
        (lambda n: r_kf_rtrl(SMALL["rnn"](), block=n), "block", "1 is the paper's algorithm"),
        (lambda n: pre_uoro(SMALL["rnn"](), block=n), "block", "1 is the paper's algorithm"),
        (lambda n: artbp(SMALL["rnn"](), length=n), "length", "5 to 100 is usual"),
        (lambda n: artbp(SMALL["rnn"](), length=5, capacity=n), "capacity", "8 length is the default"),
        (lambda n: dni(synthesized(), every=n), "every", "5 is the papers' choice"),
    ],
    ids=["r_kf_rtrl", "pre_uoro", "length", "capacity", "every"],
)
def test_a_count_that_is_no_positive_int_is_refused_with_a_remedy(call, name, remedy):
    for value, kind in [(0, ValueError), (1.5, TypeError), (True, TypeError)]:
        with pytest.raises(kind, match=rf"^{name} must be an int >= 1; got {value}; {remedy}"):
            call(value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pre_uoro(SMALL["rnn"](), epsilon=0.0), "^epsilon must be a number > 0; got 0.0; 1e-7 is"),
        (lambda: kernl(SMALL["rnn"](), gamma=-1.0), "^gamma must be a number >= 0; got -1.0; 0.1 is"),
        (
            lambda: kernl(SMALL["rnn"](), beta_rate=float("nan")),
            "^beta_rate must be a number >= 0; got nan",
        ),
        (lambda: kernl(SMALL["rnn"](), gamma_rate=-0.1), "^gamma_rate must be a number >= 0; got -0.1"),
        (lambda: artbp(SMALL["rnn"](), length=1), r"^length must be an int >= 2; .* is immediate\(cell\)"),
        (
            lambda: dni(SMALL["rnn"]()),
            r"^cell must be made by with_synthesizer; .*use dni\(with_synthesizer",
        ),
    ],
    ids=["epsilon", "gamma", "beta_rate", "gamma_rate", "length", "dni"],
)
def test_other_arguments_are_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", UNBIASED)
def test_a_matrix_that_does_not_factorise_is_refused(name):
    cell = user_cell(lambda p, h, x: jnp.tanh(p["w"] * jnp.eye(5) @ h), {"w": (5, 5)}, hidden=5)
    with pytest.raises(ValueError, match=f"^{name} needs every weight of the cell to factorise; got 'w'"):
        UNBIASED[name](cell).init(jax.random.key(0), draw(cell))
