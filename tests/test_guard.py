"""Numbers that are not finite: found, named, and left out without a trace where that is wanted."""

import re
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import foretrace as ft
from foretrace.tasks import BITS, SQUARED, Example, Task, copy
from foretrace.training import trainer
from foretrace.training._guard import TENSORS, guarded
from foretrace.training._watch import CheckedChunk, InfluenceWarning, NonFiniteError

LANES, STEPS, INPUTS = 3, 12, 2
CELL = ft.cells.rnn(hidden=4, inputs=INPUTS)
MOMENTUM = optax.sgd(0.1, momentum=0.9)


@pytest.fixture(autouse=True)
def quick_compilation():
    """What is compared here is compared up to rounding."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


class Place(NamedTuple):
    step: Any
    told: Any


def replay(xs, targets, loss=SQUARED):
    """A task that says what is in two arrays, (steps, lanes, ..)."""
    xs, targets = jnp.asarray(xs, jnp.float32), jnp.asarray(targets)

    def sample(state):
        restart = jnp.zeros(LANES, bool)
        return state._replace(step=state.step + 1), Example(xs[state.step], targets[state.step], restart)

    return Task(
        INPUTS,
        2,
        lambda key, lanes: Place(jnp.int32(0), jnp.float32(0)),
        sample,
        loss,
        lambda state, loss: state._replace(told=state.told + loss),
        lambda state: {"told": state.told},
    )


def arrays(steps=STEPS, symbols=False):
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(steps, LANES, INPUTS)).astype(np.float32)
    if symbols:
        return xs, rng.integers(2, size=(steps, LANES)).astype(np.int32)
    return xs, rng.normal(size=(steps, LANES, 2)).astype(np.float32)


def both(learner, task, **options):
    options = {"lanes": LANES, "steps": STEPS, "update_every": 1} | options
    made = trainer(CELL, learner, task, MOMENTUM, **options)
    watched = guarded(CELL, learner, task, MOMENTUM, **options)
    init = jax.jit(made.init)
    return lambda: init(jax.random.key(3)), jax.jit(made.chunk), jax.jit(watched)


def first_of(seen):
    found = {name: int(step) for name, step in zip(TENSORS, seen.first, strict=True)}
    return {name: step for name, step in found.items() if step < 2**31 - 1}


def assert_close(got, want, tolerance=1e-5):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def assert_finite(carry):
    for leaf in jax.tree.leaves(carry):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            assert np.isfinite(np.asarray(leaf)).all()


@pytest.mark.parametrize(
    ("make", "update_every"),
    [
        (lambda: ft.rtrl(CELL, block=2), 1),
        (lambda: ft.rtrl(CELL), 1),
    ],
    ids=["updates in a block", "every step a block"],
)
def test_where_all_is_finite_the_guard_changes_nothing(make, update_every):
    start, plain, watched = both(make(), replay(*arrays()), update_every=update_every)
    carry, metrics = plain(start())
    again, same, seen = watched(start())
    assert_close(again, carry)
    assert_close(same, metrics)
    assert first_of(seen) == {}
    assert int(seen.skipped) == 0


def test_the_copy_task_with_its_keys_and_its_curriculum_can_be_guarded():
    task = copy()
    cell = ft.cells.rnn(hidden=4, inputs=task.inputs)
    options = {"lanes": 2, "steps": 40, "clip": 1.0}
    made = trainer(cell, ft.tbptt(cell, window=2), task, MOMENTUM, **options)
    watched = guarded(cell, ft.tbptt(cell, window=2), task, MOMENTUM, **options)
    carry, _ = jax.jit(made.chunk)(jax.jit(made.init)(jax.random.key(1)))
    again, _, seen = jax.jit(watched)(jax.jit(made.init)(jax.random.key(1)))
    assert_close(again, carry)
    assert int(seen.skipped) == 0


def by_hand(learner, start, xs, targets):
    """Training as one would write it by hand, lanes that are not finite left out."""
    params, moments, (state, _) = start()
    told = 0.0

    def loss(readout, hidden, target, fine):
        error = jnp.sum((hidden @ readout["kernel"] + readout["bias"][None] - target) ** 2, axis=1)
        return jnp.sum(jnp.where(fine, error, 0.0)) / LANES

    step, grad, compress = map(jax.jit, (learner.step, learner.grad, learner.end_block))
    value_and_grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    for x, target in zip(xs, targets, strict=True):
        broken = ~np.isfinite(x).all(1)
        lost = broken | ~np.isfinite(target).all(1)
        state = learner.reset(state, jnp.asarray(lost))
        x = jnp.asarray(np.where(broken[:, None], np.float32(0), x))
        target = jnp.asarray(np.where(lost[:, None], np.float32(0), target))
        state, _ = step(params["cell"], state, x)
        value, (readout, credit) = value_and_grads(
            params["readout"], state.hidden, target, jnp.asarray(~lost)
        )
        gradient = {"cell": grad(params["cell"], state, credit), "readout": readout}
        # As the loop does: with the weights that the step was made with.
        state, _ = compress(params["cell"], state)
        changes, moments = MOMENTUM.update(gradient, moments, params)
        params = optax.apply_updates(params, changes)
        told += float(value)
    return params, moments, state.hidden, told


def test_a_sample_that_is_not_finite_is_left_out_and_its_lane_begins_anew():
    xs, targets = arrays()
    xs[3, 1, 0], xs[7, 2, 1], targets[5, 0, 1], targets[6, 0, 0] = np.nan, np.inf, np.nan, -np.inf
    learner = ft.rtrl(CELL)
    start, plain, watched = both(learner, replay(xs, targets))
    params, moments, hidden, told = by_hand(learner, start, xs, targets)
    carry, metrics, seen = watched(start())
    assert_close(carry.params, params)
    assert_close(carry.optimizer, moments)
    assert_close(carry.streams.learner.hidden, hidden)
    assert abs(float(carry.streams.task.told) - told) < 1e-4
    assert np.isfinite(float(metrics.loss))
    assert first_of(seen) == {"input": 4, "target": 6}
    assert int(seen.skipped) == 4
    assert not np.isfinite(float(plain(start())[1].loss))


def broken(tree):
    """A tree in whose second lane nothing is finite."""
    return jax.tree.map(lambda leaf: leaf.at[1].set(np.inf), tree)


def influence_breaks(state):
    return state._replace(past=broken(state.past))


def hidden_breaks(state):
    return state._replace(hidden=broken(state.hidden))


def a_member_breaks(state):
    past = jax.tree.map(lambda leaf: leaf.at[0, 1].set(np.inf), state.members.past)
    return state._replace(members=state.members._replace(past=past))


CASES = {
    "ok": (lambda: ft.ok(CELL, rank=2, block=2), 1, influence_breaks, "influence"),
    "average": (lambda: ft.average(ft.uoro(CELL), 2), 1, a_member_breaks, "influence"),
    "tbptt": (lambda: ft.tbptt(CELL, window=3), 3, hidden_breaks, "hidden"),
    "every step a block": (lambda: ft.rtrl(CELL), 1, hidden_breaks, "hidden"),
}


@pytest.mark.parametrize(("make", "update_every", "breaks", "name"), CASES.values(), ids=CASES)
def test_a_learner_that_breaks_goes_on_without_the_past_of_that_lane(make, update_every, breaks, name):
    xs, targets = arrays()
    begin, _, watched = both(make(), replay(xs, targets), update_every=update_every)
    carry, _, _ = watched(begin())
    good = carry.streams.learner
    streams = carry.streams._replace(learner=breaks(good), task=begin().streams.task)
    start = carry.params
    carry, metrics, seen = watched(carry._replace(streams=streams))
    assert_finite(carry)
    assert np.isfinite(float(metrics.loss))
    assert first_of(seen) == {name: 0}
    assert int(seen.skipped) == 1
    for new, old in zip(jax.tree.leaves(carry.params), jax.tree.leaves(start), strict=True):
        assert (np.asarray(new) != np.asarray(old)).any()


def test_symbols_of_a_lost_lane_have_no_loss():
    xs, targets = arrays(symbols=True)
    xs[:, 1] = np.nan
    start, _, watched = both(ft.rtrl(CELL), replay(xs, targets, BITS))
    carry, metrics, seen = watched(start())
    changed = targets.copy()
    changed[:, 1] = 1 - changed[:, 1]
    start, _, watched = both(ft.rtrl(CELL), replay(xs, changed, BITS))
    again, same, _ = watched(start())
    assert_close(again.params, carry.params, 0.0)
    assert float(same.loss) == float(metrics.loss)
    assert int(seen.skipped) == STEPS


def test_an_overflow_drops_the_update_and_starts_its_lane_anew():
    linear = ft.cell(
        lambda params, hidden, x: params["w"] @ hidden + x,
        init=lambda key: {"w": 3 * jnp.eye(2)},
        hidden=2,
        inputs=2,
    )
    xs, targets = arrays()
    xs[5, 2] = 1e38
    task = replay(xs, targets)
    options = {"lanes": LANES, "steps": STEPS}
    start = jax.jit(trainer(linear, ft.rtrl(linear), task, optax.sgd(1e-9), **options).init)(
        jax.random.key(0)
    )
    watched = jax.jit(guarded(linear, ft.rtrl(linear), task, optax.sgd(1e-9), **options))
    carry, _, seen = watched(start)
    assert_finite(carry)
    assert min(first_of(seen).values()) == 6
    assert "input" not in first_of(seen)
    assert (np.abs(carry.streams.learner.hidden[2]) < 1e6).all()


def watch(learner, task, *, skip, cell=CELL, optimizer=MOMENTUM, steps=4):
    options = {"lanes": LANES, "steps": steps}
    made = trainer(cell, learner, task, optimizer, **options)
    run = CheckedChunk(made, guarded(cell, learner, task, optimizer, **options), skip=skip)
    start = jax.jit(made.init)(jax.random.key(3))
    run.compile(start)
    return run, start


def test_stop_names_the_first_step_and_keeps_what_was_good():
    xs, targets = arrays()
    xs[6, 1, 0] = targets[9, 1, 0] = np.nan
    run, start = watch(ft.rtrl(CELL), replay(xs, targets), skip=False)
    good, _, found = run(start, 0, {})
    assert found.keys() == {"influence"}
    for _ in range(2):
        with pytest.raises(NonFiniteError, match=r"^input must be finite; got .* at step 7; go on"):
            run(good, 4, {})
    assert_finite(good)
    later = good._replace(streams=good.streams._replace(task=Place(jnp.int32(8), jnp.float32(0))))
    with pytest.raises(NonFiniteError, match=r"^target must be finite; got .* at step 10; go on"):
        run(later, 8, {})


def test_skip_goes_on_and_counts():
    xs, targets = arrays()
    xs[6, 1, 0] = xs[7, 0, 0] = targets[6, 2, 0] = np.nan
    run, carry = watch(ft.rtrl(CELL), replay(xs, targets), skip=True)
    last, skipped = {}, []
    for chunk in range(3):
        carry, metrics, last = run(carry, 4 * chunk, last)
        skipped.append(last["skipped"])
        assert np.isfinite(metrics.loss)
    assert skipped == [0, 3, 0]
    assert_finite(carry)
    assert int(carry.streams.task.step) == STEPS


@pytest.mark.parametrize("skip", [False, True])
def test_parameters_that_are_not_finite_are_named_and_cannot_be_skipped(skip):
    run, start = watch(ft.rtrl(CELL), replay(*arrays()), skip=skip)
    params = dict(
        start.params, cell=jax.tree.map(lambda leaf: leaf * np.float32(np.nan), start.params["cell"])
    )
    with pytest.raises(NonFiniteError, match=r"^parameters must be finite; got .* at step 8;"):
        run(start._replace(params=params), 8, {})


def test_an_exploding_influence_is_reported_before_it_overflows():
    gain = ft.cell(
        lambda params, hidden, x: 1.5 * hidden + params["w"] @ x,
        init=lambda key: {"w": jnp.zeros((2, 2))},
        hidden=2,
        inputs=2,
    )
    xs, targets = np.ones((400, LANES, 2), np.float32), np.zeros((400, LANES, 2), np.float32)
    run, carry = watch(
        ft.rtrl(gain), replay(xs, targets), skip=False, cell=gain, optimizer=optax.sgd(0.0), steps=20
    )
    sizes, warned = [], []
    with warnings.catch_warnings(record=True) as said, pytest.raises(NonFiniteError) as stopped:
        warnings.simplefilter("always")
        for chunk in range(20):
            carry, _, found = run(carry, 20 * chunk, {})
            sizes.append(found["influence"])
            warned.append(len(said))
    assert issubclass(said[0].category, InfluenceWarning)
    assert "the influence explodes: its largest number is " in str(said[0].message)
    assert warned[0] == 0
    assert next(size for size, count in zip(sizes, warned, strict=True) if count) < 1e12
    assert 100 < int(re.search(r"at step (\d+);", str(stopped.value))[1]) < 240, (
        "1.5^218 is 2e38, its square root 1.5^109"
    )
