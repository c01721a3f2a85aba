"""`ft.online` under JAX's transformations, and the examples that the docstrings promise."""

import doctest
import importlib
import pkgutil
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import foretrace as ft
from oracles import (
    CELLS,
    assert_close,
    draw,
    noise,
    quick_compilation,  # noqa: F401
    run,
    stream,
    user_cell,
)

LEARNERS = {
    "rtrl": ft.rtrl,
    "uoro": ft.uoro,
    "kf_rtrl": ft.kf_rtrl,
    "ok block 2": lambda cell: ft.ok(cell, rank=2, block=2),
    "tbptt": lambda cell: ft.tbptt(cell, window=3),
    "average": lambda cell: ft.average(ft.ok(cell, rank=1), 2),
}


def squares(hidden):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(hidden)) / 2


@pytest.mark.parametrize(
    ("name", "lanes"), [*((name, 2) for name in LEARNERS), ("uoro", None), ("average", None)]
)
def test_grad_of_online_is_the_learners_gradient(x64, name, lanes):
    cell = CELLS["lstm"]()
    params, (xs, _) = draw(cell), stream(cell, 4, lanes)
    learner = LEARNERS[name](cell)
    step = ft.online(learner)

    def loss(params, state, x):
        hidden, state = step(params, state, x)
        return squares(hidden), state

    @jax.jit
    def by_hand(params, state, x):
        state, _ = learner.step(params, state, x)
        return learner.grad(params, state, state.hidden), state

    online = jax.jit(jax.grad(loss, has_aux=True))
    states = [learner.init(jax.random.key(0), params, lanes) for _ in range(2)]
    for x in xs:
        gradient, states[0] = online(params, states[0], x)
        expected, states[1] = by_hand(params, states[1], x)
        assert_close(gradient, expected)
        assert_close(states[0].hidden, states[1].hidden)


def heads(step, params, state, x):
    """A layer below, two heads with a loss each."""
    below = jnp.tanh(params["below"] @ x)
    hidden, state = step(params["cell"], state, below)
    first, second = jnp.sin(params["first"] @ hidden), jnp.exp(params["second"] @ hidden)
    return jnp.sum(first) + jnp.sum(second**2), state


def heads_problem():
    cell = CELLS["gru"]()
    rest = {"below": jnp.ones((2, 4)), "first": jnp.ones((2, 3)), "second": jnp.ones((1, 3))}
    return cell, noise(rest, 3, 0.5) | {"cell": draw(cell)}, noise(jnp.ones((6, 4)), 4)


def test_two_heads_and_a_layer_below_get_their_gradients(x64):
    cell, params, xs = heads_problem()
    learner = ft.rtrl(cell, block=2)
    online = jax.jit(jax.grad(lambda *a: heads(ft.online(learner), *a), has_aux=True))

    def unrolled(trained, frozen, t):
        """The loss at step t; all but the cell is trained through that step alone."""
        hidden = cell.initial_hidden()
        for i, x in enumerate(xs[: t + 1]):
            now = trained if i == t else frozen | {"cell": trained["cell"]}
            loss, hidden = heads(lambda p, h, x: (cell.step(p, h, x),) * 2, now, hidden, x)
        return loss

    state = learner.init(jax.random.key(0), params["cell"])
    for t, x in enumerate(xs):
        gradients, state = online(params, state, x)
        assert_close(gradients, jax.jit(jax.grad(unrolled), static_argnums=2)(params, params, t))


def test_online_in_a_scan_under_vmap_is_a_loop_of_single_calls(x64):
    cell, params, _ = heads_problem()
    xs = noise(jnp.ones((2, 6, 4)), 5)
    learner = ft.ok(cell, rank=1, block=2)
    gradient = jax.grad(lambda *a: heads(ft.online(learner), *a), has_aux=True)

    @jax.jit
    @jax.vmap
    def streams(key, xs):
        def body(state, x):
            gradients, state = gradient(params, state, x)
            return state, gradients

        return jax.lax.scan(body, learner.init(key, params["cell"]), xs)[1]

    scanned = streams(jax.random.split(jax.random.key(0), 2), xs)
    single = jax.jit(gradient)
    for i, key in enumerate(jax.random.split(jax.random.key(0), 2)):
        state = learner.init(key, params["cell"])
        for t, x in enumerate(xs[i]):
            gradients, state = single(params, state, x)
            assert_close(gradients, jax.tree.map(lambda a, i=i, t=t: a[i, t], scanned))


def test_the_gradient_of_a_scanned_sum_is_the_sum_of_the_steps_gradients(x64):
    """The state carries no gradient: summed, the online gradients are those of back-propagation."""
    cell = CELLS["highway2"]()
    params, (xs, credits) = draw(cell), stream(cell, 5)
    for learner in ft.tbptt(cell, window=5), ft.rtrl(cell):
        step = ft.online(learner)

        def online(params, learner=learner, step=step):
            def body(state, inputs):
                x, credit = inputs
                hidden, state = step(params, state, x)
                return state, hidden @ credit

            state = learner.init(jax.random.key(0), params)
            return jnp.sum(jax.lax.scan(body, state, (xs, credits))[1])

        def unrolled(params):
            def body(hidden, inputs):
                x, credit = inputs
                hidden = cell.step(params, hidden, x)
                return hidden, hidden @ credit

            return jnp.sum(jax.lax.scan(body, cell.initial_hidden(), (xs, credits))[1])

        assert_close(jax.jit(jax.grad(online))(params), jax.jit(jax.grad(unrolled))(params))


def test_value_and_gradient_agree_with_run(x64):
    cell = CELLS["rnn"]()
    params, (xs, credits) = draw(cell), stream(cell, 5)
    learner = ft.uoro(cell, block=2)
    step = ft.online(learner)

    @jax.jit
    def value(params, state, x, credit):
        def loss(params):
            hidden, new = step(params, state, x)
            return hidden @ credit, new

        return jax.value_and_grad(loss, has_aux=True)(params)

    expected, *_ = run(learner, cell, params, xs, credits)
    state = learner.init(jax.random.key(7), params)
    for t, (x, credit) in enumerate(zip(xs, credits, strict=True)):
        (loss, state), gradient = value(params, state, x, credit)
        assert_close(loss, state.hidden @ credit)
        assert_close(gradient, jax.tree.map(lambda a, t=t: a[t], expected))


@pytest.mark.parametrize("lanes", [None, 2])
def test_an_integer_input_is_taken(lanes):
    cell = user_cell(
        lambda p, h, x: jnp.tanh(p["w"] @ h + p["v"] @ jax.nn.one_hot(x, 4)),
        {"w": (3, 3), "v": (3, 4)},
        inputs=jax.ShapeDtypeStruct((), "int32"),
    )
    params, learner = draw(cell), ft.ok(cell, rank=2)
    step = ft.online(learner)

    @jax.jit
    def gradient(params, state, x):
        def loss(params):
            hidden, new = step(params, state, x)
            return squares(hidden), new

        return jax.grad(loss, has_aux=True)(params)

    state = learner.init(jax.random.key(0), params, lanes)
    gradients, state = gradient(params, state, jnp.full(() if lanes is None else lanes, 2))
    assert_close(gradients, learner.grad(params, state, state.hidden), 1e-6)
    assert np.any(gradients["v"][:, 2] != 0)


def test_a_training_loop_of_ten_lines_learns():
    cell = ft.cells.gru(hidden=8, inputs=2)
    learner, optimiser = ft.ok(cell, rank=4), optax.adam(1e-2)
    step = ft.online(learner)
    params = {"cell": cell.init(jax.random.key(0)), "readout": jnp.zeros((8, 2))}

    def loss(params, state, x, y):
        hidden, state = step(params["cell"], state, x)
        logits = hidden @ params["readout"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), state

    @jax.jit
    def train(key, params):
        bits = jax.random.bernoulli(key, shape=(1500, 4)).astype(int)

        def update(carry, xy):
            params, state, slots = carry
            x, y = xy
            value_and_grad = jax.value_and_grad(loss, has_aux=True)
            (value, state), grads = value_and_grad(params, state, jax.nn.one_hot(x, 2), y)
            updates, slots = optimiser.update(grads, slots)
            return (optax.apply_updates(params, updates), state, slots), value

        state = learner.init(jax.random.key(1), params["cell"], lanes=4)
        stream = bits[2:], bits[:-2]  # say what was heard two steps ago
        with jax.numpy_dtype_promotion("standard"):  # optax relies on it
            return jax.lax.scan(update, (params, state, optimiser.init(params)), stream)[1]

    losses = train(jax.random.key(2), params)
    assert np.mean(losses[:50]) > 0.6
    assert np.mean(losses[-50:]) < 0.1


@pytest.mark.parametrize("name", ["ok:2", "ok:2/4", "uoro/2*2", "tbptt:4"])
def test_steps_then_blocks_then_steps_are_steps(x64, name):
    """`step` leaves a full block to the step after it, and `run_blocks` ends it."""
    cell = CELLS["rnn"]()
    learner, params, (xs, credits) = ft.learners.parse(name).build(cell), draw(cell), stream(cell, 12)

    def read(params, state, inputs):
        return params, learner.grad(params, state, inputs[1])

    @jax.jit
    def steps(state, xs, credits):
        def step(state, inputs):
            state, _ = learner.step(params, state, inputs[0])
            return state, read(params, state, inputs)[1]

        return jax.lax.scan(step, state, (xs, credits))

    def blocks(state, xs, credits):
        return ft.run_blocks(learner, params, state, (xs, credits), read, inputs=itemgetter(0))[1:]

    def mixed(state):
        parts = []
        for i, take in enumerate((steps, blocks, steps)):
            state, gradients = take(state, *(a[4 * i : 4 * i + 4] for a in (xs, credits)))
            parts.append(gradients)
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *parts)

    expected = steps(learner.init(jax.random.key(0), params), xs, credits)[1]
    assert_close(mixed(learner.init(jax.random.key(0), params)), expected)
    keys = jnp.stack([jax.random.key(0), jax.random.key(1)])
    with jax.debug_key_reuse(False):  # it takes a key that came through a scan for used
        states = jax.vmap(lambda key: learner.init(key, params))(keys)
        seeds = jax.jit(jax.vmap(mixed))(states)
    assert_close(jax.tree.map(lambda a: a[0], seeds), expected)


def test_blocks_that_begin_within_a_block_are_refused():
    cell = CELLS["rnn"]()
    learner, params, (xs, _) = ft.ok(cell, rank=1, block=4), draw(cell), stream(cell, 4)
    state, _ = learner.step(params, learner.init(jax.random.key(0), params), xs[0])
    with pytest.raises(ValueError, match="after 1; take"):
        ft.run_blocks(learner, params, state, xs, lambda params, state, x: (params, None))
    with pytest.raises(ValueError, match="xs must have a multiple of 4 steps, those of a block; got 3"):
        ft.run_blocks(learner, params, state, xs[:3], lambda params, state, x: (params, None))


MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(ft.__path__, "foretrace.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", ["foretrace", *MODULES])
def test_examples_in_docstrings_run(name):
    with jax.numpy_dtype_promotion("standard"):  # as a user has it
        failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0


def test_every_learner_and_cell_has_an_example():
    finder = doctest.DocTestFinder(recurse=False)
    public = [getattr(ft, name) for name in ("ok", "kf_rtrl", "uoro", "rtrl", "tbptt", "online")]
    for function in [*public, ft.cell]:
        (found,) = finder.find(function, function.__name__, module=False) or [None]
        assert found is not None and found.examples, function.__name__
