"""One battery for every learner over every cell it accepts."""

import inspect
import re
import sys
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace._checks import UserError, UserTypeError
from foretrace._types import at_phase
from foretrace.learners import _kronecker
from foretrace.learners._engine import _lanes, _window
from oracles import (
    CELLS,
    assert_close,
    assert_unbiased,
    dot,
    draw,
    exact,
    exact_lanes,
    noise,
    precision,
    quick_compilation,  # noqa: F401
    run,
    signs_from,
    stream,
    traced,
    user_cell,
)

STEPS = 7

LEARNERS = {
    "rtrl": ft.rtrl,
    "rtrl block 3": lambda cell: ft.rtrl(cell, block=3),
    "tbptt": lambda cell: ft.tbptt(cell, window=3),
    "rolling_tbptt": lambda cell: ft.rolling_tbptt(cell, window=3),
    "uoro": ft.uoro,
    "uoro block 3": lambda cell: ft.uoro(cell, block=3),
    "kf_rtrl": ft.kf_rtrl,
    "kf_rtrl block 3": lambda cell: ft.kf_rtrl(cell, block=3),
    "ok": lambda cell: ft.ok(cell, rank=2),
    "ok block 3": lambda cell: ft.ok(cell, rank=2, block=3),
    "average": lambda cell: ft.average(ft.ok(cell, rank=1, block=2), 3),
}
every_learner = pytest.mark.parametrize("name", LEARNERS)


@cache
def learner_of(name, cell, dtype):
    """One object per learner, cell and precision, so that its programs are compiled once."""
    return LEARNERS[name](cell)


# Exact at every step of a stream of STEPS steps.
EXACT = {
    "rtrl block 1": ft.rtrl,
    "rtrl block 2": lambda cell: ft.rtrl(cell, block=2),
    "rtrl block 3": lambda cell: ft.rtrl(cell, block=3),  # of 3 units: the algorithm of Schmidhuber 1992
    "rtrl block 16": lambda cell: ft.rtrl(cell, block=16),
    "tbptt of a longer window": lambda cell: ft.tbptt(cell, window=STEPS),
    "rolling_tbptt of a longer window": lambda cell: ft.rolling_tbptt(cell, window=STEPS),
    "ok of full rank": lambda cell: ft.ok(cell, rank=STEPS - 1),
    "ok of full rank, block 3": lambda cell: ft.ok(cell, rank=STEPS - 1, block=3),
    "uoro in its first block": lambda cell: ft.uoro(cell, block=STEPS),
    "kf_rtrl in its first block": lambda cell: ft.kf_rtrl(cell, block=STEPS),
    "ok in its first block": lambda cell: ft.ok(cell, rank=1, block=STEPS),
}
PAIRS = [("rnn", name) for name in EXACT]
PAIRS += [
    (cell, name) for cell in CELLS if cell != "rnn" for name in ("rtrl block 3", "ok of full rank, block 3")
]
PAIRS += [("gru", "rtrl block 1"), ("gain", "rtrl block 1"), ("gain", "tbptt of a longer window")]
PAIRS += [("gru", "kf_rtrl in its first block"), ("lstm", "uoro in its first block")]


@cache
def problem(cell_name, lanes, dtype):
    """A cell with a stream and its exact gradients at every step."""
    cell = CELLS[cell_name]()
    params, (xs, credits) = draw(cell), stream(cell, STEPS, lanes)
    find = exact if lanes is None else exact_lanes
    return cell, params, xs, credits, find(cell, params, xs, credits)


@pytest.mark.parametrize(("cell_name", "name"), PAIRS)
def test_gradient_at_every_step_is_that_of_the_unrolled_loss(x64, cell_name, name):
    cell, params, xs, credits, expected = problem(cell_name, 2, precision())
    gradients, *_ = run(EXACT[name](cell), cell, params, xs, credits, lanes=2)
    assert_close(gradients, expected)


def test_sum_over_steps_is_the_gradient_of_the_summed_loss(x64):
    cell, params, xs, credits, _ = problem("gru", None, precision())
    gradients, *_ = run(ft.rtrl(cell), cell, params, xs, credits)

    def loss(params):
        hidden, total = cell.initial_hidden(), 0.0
        for x, credit in zip(xs, credits, strict=True):
            hidden = cell.step(params, hidden, x)
            total += dot(credit, hidden)
        return total

    assert_close(jax.tree.map(lambda a: jnp.sum(a, axis=0), gradients), jax.grad(loss)(params))


@pytest.mark.parametrize("name", ["rtrl block 2", "rtrl block 16", "ok of full rank, block 3"])
@pytest.mark.parametrize("cell_name", ["lstm", "gain", "layers"])
def test_weights_that_change_at_every_step_are_each_steps_own(x64, cell_name, name):
    cell, params, xs, credits, _ = problem(cell_name, 2, precision())

    def gradients(learner):
        def step(carry, inputs):
            params, state = carry
            state, _ = learner.step(params, state, inputs[0])
            gradient = learner.grad(params, state, inputs[1])
            params = jax.tree.map(lambda p, g: p - 0.3 * jnp.tanh(g), params, gradient)
            return (params, state), gradient

        start = params, learner.init(jax.random.key(0), params, lanes=2)
        return jax.jit(lambda: jax.lax.scan(step, start, (xs, credits))[1])()

    # Block 1 of `rtrl` takes every step along as soon as it is made.
    assert_close(gradients(EXACT[name](cell)), gradients(EXACT["rtrl block 1"](cell)))


@pytest.mark.parametrize("cell_name", ["highway", "lstm"])
def test_float32_is_exact_to_its_rounding(cell_name):
    cell, params, xs, credits, expected = problem(cell_name, None, precision())
    gradients, *_ = run(ft.rtrl(cell, block=2), cell, params, xs, credits)
    assert_close(gradients, expected, 1e-5)


def test_uoro_with_a_block_is_memory_t_uoro(x64):
    """T steps as one transition, by brute force: back-propagation inside, s (x) w before."""
    cell, params, xs, credits, _ = problem("rnn", None, precision())
    nu, epsilon = jnp.array([1.0, -1.0, 1.0]), 1e-7
    with signs_from(lambda count: nu):
        gradients, *_ = run(ft.uoro(cell, block=3), cell, params, xs, credits)

    def norm(tree):
        return jnp.sqrt(squared(tree)) + epsilon

    hidden, s, w = cell.initial_hidden(), jnp.zeros(3), jax.tree.map(jnp.zeros_like, params)
    for begin in range(0, STEPS, 3):
        for t in range(begin, min(begin + 3, STEPS)):

            def through(params, hidden, begin=begin, t=t):
                for x in xs[begin : t + 1]:
                    hidden = cell.step(params, hidden, x)
                return hidden

            end, pull = jax.vjp(through, params, hidden)
            inside, before = pull(credits[t])
            want = jax.tree.map(lambda a, b, weight=before @ s: a + weight * b, inside, w)
            assert_close(jax.tree.map(lambda a, t=t: a[t], gradients), want)
        _, moved = jax.jvp(lambda h: through(params, h), (hidden,), (s,))
        g, _ = pull(nu)
        rho0, rho1 = jnp.sqrt(norm(w) / norm(moved)), jnp.sqrt(norm(g) / norm(nu))
        s = rho0 * moved + rho1 * nu
        w = jax.tree.map(lambda a, b, p=rho0, q=rho1: a / p + b / q, w, g)
        hidden = end


@pytest.mark.parametrize(
    ("make", "start"),
    [(ft.tbptt, lambda t: 3 * (t // 3)), (ft.rolling_tbptt, lambda t: max(0, t - 2))],
    ids=["tbptt", "rolling_tbptt"],
)
def test_tbptt_sees_back_to_its_windows_start_and_no_further(x64, make, start):
    cell, params, xs, credits, _ = problem("rnn", None, precision())
    gradients, *_ = run(make(cell, window=3), cell, params, xs, credits)
    hidden = [cell.initial_hidden()]
    for x in xs:
        hidden.append(cell.step(params, hidden[-1], x))
    for t in range(STEPS):
        begin = start(t)
        cut = cell._replace(initial_hidden=lambda h=hidden[begin]: h)
        window = exact(cut, params, xs[begin : t + 1], credits[begin : t + 1])
        got, want = (jax.tree.map(lambda a, i=i: a[i], g) for g, i in ((gradients, t), (window, -1)))
        assert_close(got, want)


@pytest.mark.parametrize("name", ["rtrl", "uoro", "ok block 3", "average"])
def test_a_single_stream_is_one_lane(x64, name):
    cell, params, xs, credits, _ = problem("rnn", None, precision())
    learner = learner_of(name, cell, precision())
    single, infos, state = run(learner, cell, params, xs, credits)
    lanes, lane_infos, lane_state = run(learner, cell, params, xs[:, None], credits[:, None], lanes=1)
    assert_close(lanes, single)
    assert_close(
        jax.tree.map(lambda a: a.squeeze(), (lane_infos, lane_state.hidden)),
        jax.tree.map(lambda a: a.squeeze(), (infos, state.hidden)),
    )


@every_learner
def test_hidden_state_is_the_cells(x64, name):
    cell, params, xs, credits, _ = problem("rnn", 2, precision())
    *_, state = run(learner_of(name, cell, precision()), cell, params, xs, credits, lanes=2)
    hidden = jnp.zeros((2, 3))
    for x in xs:
        hidden = jax.vmap(cell.step, in_axes=(None, 0, 0))(params, hidden, x)
    assert_close(state.hidden, hidden, 1e-12)


@pytest.mark.parametrize("name", [name for name in LEARNERS if "block" in name] + ["average"])
@pytest.mark.parametrize("group", [1, 2])
def test_lanes_whose_pasts_do_not_fit_the_cache_go_alike(x64, monkeypatch, name, group):
    cell, params = CELLS["gru"](), draw(CELLS["gru"]())
    xs, credits = stream(cell, STEPS, 4)
    restart = jnp.zeros((STEPS, 4), bool).at[4, 1].set(True)
    expected = run(learner_of(name, cell, precision()), cell, params, xs, credits, lanes=4, restart=restart)
    monkeypatch.setattr(_window, "lanes_that_fit", lambda past, lanes: group)
    assert_close(
        run(LEARNERS[name](cell), cell, params, xs, credits, lanes=4, restart=restart)[:2],
        expected[:2],
        1e-12,
    )


@pytest.mark.parametrize(("cache", "group"), [(10**9, 12), (4500, 4), (4399, 3), (2200, 2), (3, 1)])
def test_as_many_lanes_go_at_once_as_fit_the_caches_and_divide_all(monkeypatch, cache, group):
    monkeypatch.setattr(_lanes, "_CACHE", cache)
    monkeypatch.setattr(_lanes.os, "cpu_count", lambda: 2)
    past = jnp.zeros((12, 500), jnp.float32), jnp.zeros((12, 10, 5), jnp.float32)  # 2,200 bytes each
    assert _lanes.lanes_that_fit(past, 12) == group
    assert _lanes.lanes_that_fit((), 12) == 12


# Restarting.


@pytest.mark.parametrize("cell_name", ["rnn", "gru", "gain"])
@pytest.mark.parametrize("block", [1, 3])
def test_a_restarted_lane_is_exact_as_a_fresh_stream(x64, cell_name, block):
    cell, params, xs, credits, _ = problem(cell_name, 2, precision())
    # Lane 0 restarts inside blocks of 3, lane 1 at the beginning, at a block's boundary and last.
    restart = jnp.zeros((STEPS, 2), bool).at[jnp.array([1, 5]), 0].set(True)
    restart = restart.at[jnp.array([0, 3, 6]), 1].set(True)
    expected = exact_lanes(cell, params, xs, credits, restart)
    for learner in ft.rtrl(cell, block=block), ft.ok(cell, rank=6, block=block):
        gradients, *_ = run(learner, cell, params, xs, credits, lanes=2, restart=restart)
        assert_close(gradients, expected)


@every_learner
@pytest.mark.parametrize("at", [3, 4])
def test_nothing_of_the_past_is_left_after_a_restart(x64, name, at):
    cell, params, xs, credits, _ = problem("rnn", 2, precision())
    learner = learner_of(name, cell, precision())
    restart = jnp.zeros((STEPS, 2), bool).at[at].set(True)
    after = []
    for inputs in xs, xs.at[:at].multiply(-30.0):  # two pasts, under the same signs
        gradients, *_ = run(learner, cell, params, inputs, credits, lanes=2, restart=restart)
        after.append(jax.tree.map(lambda a: a[at:], gradients))
    assert_close(after[0], after[1], 1e-12)


@every_learner
def test_a_restart_before_the_first_step_changes_nothing(x64, name):
    cell, params, xs, credits, _ = problem("rnn", 2, precision())
    learner, first = learner_of(name, cell, precision()), jnp.zeros((STEPS, 2), bool).at[0].set(True)
    restarted, fresh = (
        run(learner, cell, params, xs, credits, lanes=2, restart=r)[0] for r in (first, None)
    )
    assert_close(restarted, fresh, 1e-12)


@pytest.mark.parametrize("name", ["rtrl block 3", "uoro block 3", "kf_rtrl", "ok block 3"])
def test_a_lane_restarted_at_a_boundary_is_a_fresh_stream_with_its_key(x64, name):
    cell, params, xs, credits, _ = problem("gain", None, precision())
    learner = learner_of(name, cell, precision())
    step, grad = jax.jit(learner.step), jax.jit(learner.grad)
    old = learner.init(jax.random.key(0), params)
    for x in xs[:3]:
        old, _ = step(params, old, x)
    old, _ = step(params, learner.reset(old, jnp.array(True)), xs[3])
    fresh, _ = step(params, learner.init(jax.random.key(0), params), xs[3])
    fresh = fresh._replace(key=jax.random.clone(old.key))
    for x, credit in zip(xs[4:], credits[4:], strict=True):
        (old, _), (fresh, _) = (step(params, state, x) for state in (old, fresh))
        assert_close(*(grad(params, state, credit) for state in (old, fresh)), 1e-12)


@every_learner
def test_there_is_no_gradient_between_a_restart_and_the_next_step(name):
    cell, params, xs, credits, _ = problem("rnn", 2, precision())
    learner = learner_of(name, cell, precision())
    *_, state = run(learner, cell, params, xs, credits, lanes=2)
    state = jax.jit(learner.reset)(state, jnp.array([True, True]))
    assert squared(jax.jit(learner.grad)(params, state, credits[-1])) == 0


def test_only_the_lanes_that_restart_are_touched(x64):
    cell, params, xs, credits, _ = problem("rnn", 2, precision())
    learner, credit = ft.ok(cell, rank=2, block=3), credits[-1].at[0].set(0)
    restart = jnp.zeros((STEPS, 2), bool).at[4, 0].set(True)
    states = [run(learner, cell, params, xs, credits, lanes=2, restart=r)[2] for r in (restart, None)]
    assert_close(*(learner.grad(params, state, credit) for state in states), 1e-12)


# Unbiasedness, over every sign vector.

UNBIASED = {
    "uoro": ft.uoro,
    "kf_rtrl": ft.kf_rtrl,
    "ok rank 1": lambda cell, block: ft.ok(cell, rank=1, block=block),
    "ok rank 2": lambda cell, block: ft.ok(cell, rank=2, block=block),
}
SMALL = {
    "rnn": lambda: ft.cells.rnn(hidden=3, inputs=1, dtype=precision()),
    "highway": lambda: ft.cells.highway(hidden=2, inputs=2, dtype=precision()),
    "gru": lambda: ft.cells.gru(hidden=2, inputs=2, dtype=precision()),
    "lstm": lambda: ft.cells.lstm(hidden=2, inputs=1, dtype=precision()),
    "gain": CELLS["gain"],
}
# Steps so that with block 1 three reductions follow each other, with block 2 two of two steps.
ENUMERATED = [("highway", name, block) for name in UNBIASED for block in (1, 2)]
ENUMERATED += [("gru", name, 2) for name in UNBIASED]
ENUMERATED += [("gru", "ok rank 2", 1), ("gru", "kf_rtrl", 1), ("gain", "ok rank 1", 2)]
ENUMERATED += [("gain", "uoro", 1), ("gain", "kf_rtrl", 2), ("gain", "ok rank 2", 1)]
ENUMERATED += [("rnn", "uoro", 2), ("rnn", "ok rank 1", 2), ("lstm", "ok rank 2", 1)]


def small(cell_name, steps):
    cell = SMALL[cell_name]()
    return cell, draw(cell, scale=0.8), stream(cell, steps)[0]


@pytest.mark.parametrize(("cell_name", "name", "block"), ENUMERATED)
def test_mean_over_all_signs_is_rtrl(x64, cell_name, name, block):
    cell, params, xs = small(cell_name, 4 if block == 1 else 6)
    assert_unbiased(UNBIASED[name](cell, block=block), cell, params, xs)


@pytest.mark.parametrize("name", UNBIASED)
def test_mean_over_all_signs_is_rtrl_after_a_restart_inside_a_block(x64, name):
    cell, params, xs = small("highway", 6)
    assert_unbiased(UNBIASED[name](cell, block=2), cell, params, xs, restart_at=1)


def test_dropping_the_smallest_directions_is_caught(x64, monkeypatch):
    reduce = _kronecker.reduce_optimally

    def truncate(key, left, gram, rank):
        """The truncated singular value decomposition: the least error of all, but biased."""
        _, _, info = reduce(key, left, gram, rank)
        root = jnp.linalg.cholesky(gram + 1e-14 * jnp.eye(len(gram)))
        q, r = jnp.linalg.qr(left.T)
        v, d, wt = jnp.linalg.svd(r @ root, full_matrices=False)
        mixing = jax.scipy.linalg.solve_triangular(root, wt[:rank].T, lower=True, trans=1)
        return d[:rank, None] * (q @ v[:, :rank]).T, mixing.T, info

    monkeypatch.setattr(sys.modules["foretrace.learners._ok"], "reduce_optimally", truncate)
    cell, params, xs = small("highway", 3)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_unbiased(ft.ok(cell, rank=1), cell, params, xs)


@pytest.mark.parametrize("name", ["uoro", "kf_rtrl", "ok rank 1"])
def test_signs_that_are_not_random_are_caught(x64, name):
    cell, params, xs = small("highway", 3)
    learner = UNBIASED[name](cell, block=1)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_unbiased(learner, cell, params, xs, every=lambda count: jnp.ones((1, count)))


@pytest.mark.parametrize(("name", "least"), [("uoro", 3), ("kf_rtrl", 8), ("ok rank 1", 8)])
def test_lanes_and_groups_have_signs_of_their_own(name, least):
    cell, lanes = CELLS["gru"](), 64
    params, xs = draw(cell, scale=0.8), stream(cell, 5)[0]
    learner = UNBIASED[name](cell, block=1)
    xs = jnp.repeat(xs[:, None], lanes, axis=1)  # the same stream in all lanes
    *_, state = run(learner, cell, params, xs, jnp.ones((5, lanes, 3)), lanes=lanes)
    one_lane = jnp.repeat(jnp.eye(lanes)[:, :, None], 3, axis=2)
    read = jax.jit(jax.vmap(lambda credit: learner.grad(params, state, credit)))(one_lane)
    biases = np.stack([read[gate]["bias"][:, 0] for gate in ("reset", "update", "candidate")])
    outcomes = {tuple(signs) for signs in (biases > biases.mean(axis=1, keepdims=True)).T}
    assert len(outcomes) >= least


# The size of the error.


def parts(structure, tree):
    """Leaves of a params-shaped tree, those of each group together."""
    leaves = jax.tree.leaves(tree)
    return [[leaves[member.leaf] for member in group.members] for group in structure.groups]


def of_past(structure, past):
    """The influence matrix that a factored past stands for, params-shaped with leaves (S, ..)."""
    wide = [g.right.reshape(*g.right.shape[:2], len(g.left)) for g in past.groups]
    matrices = [jnp.einsum("rf,szr->sfz", g.left, a) for g, a in zip(past.groups, wide, strict=True)]
    leaves = (structure.leaves[d.leaf].shape for d in structure.dense)
    dense = [a.reshape(-1, *shape) for a, shape in zip(past.dense, leaves, strict=True)]
    return jax.vmap(structure.gradient)(matrices, dense)


def carry(cell, params, influence, hidden, x):
    """influence <- state_jacobian influence + immediate_jacobian, by brute force."""
    immediate, jacobian = jax.jacobian(cell.step, argnums=(0, 1))(params, hidden, x)
    moved = jax.tree.map(lambda a: jnp.tensordot(jacobian, a, 1), influence)
    return jax.tree.map(jnp.add, moved, immediate), cell.step(params, hidden, x)


def squared(tree):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("cell_name", "rank", "block"),
    [("highway", 1, 1), ("highway", 3, 1), ("gru", 2, 1), ("gain", 2, 4), ("gru", 1, 3)],
)
def test_error_of_every_draw_of_ok_is_info_variance(x64, cell_name, rank, block):
    cell = CELLS[cell_name]()
    params, xs = draw(cell), stream(cell, 5 * block)[0]
    learner, structure = ft.ok(cell, rank=rank, block=block), ft.structure_of(cell, params)

    @jax.jit
    def errors(keys):
        state = learner.init(jax.random.key(1), params)
        step = lambda state, x: (learner.step(params, state, x)[0], None)  # noqa: E731
        state, _ = jax.lax.scan(step, state, xs[: 4 * block])
        state, _ = learner.end_block(params, state)
        target, hidden = of_past(structure, jax.tree.map(lambda a: a[0], state.past)), state.hidden
        for x in xs[4 * block :]:
            target, hidden = carry(cell, params, target, hidden, x)
            state = learner.advance(params, state, x)

        def one(key):
            new, info = learner.end_block(params, state._replace(key=key))
            got = of_past(structure, jax.tree.map(lambda a: a[0], new.past))
            difference = jax.tree.map(jnp.subtract, got, target)
            groups = jnp.stack([squared(part) for part in parts(structure, difference)])
            dense = squared(difference) - jnp.sum(groups)
            return groups, info, dense

        return jax.vmap(one)(keys)

    groups, info, dense = errors(jax.random.split(jax.random.key(2), 16))
    assert np.all(info.variance > 0)
    np.testing.assert_allclose(groups, info.variance, rtol=1e-7)
    assert np.all(np.abs(dense) < 1e-12)


@cache
def long_run(names, dtype):
    """Squared gradient errors (keys, steps) on a contractive network, over many keys, and the scale."""
    cell = ft.cells.rnn(hidden=6, inputs=3)
    params, (xs, credits) = draw(cell, scale=0.25), stream(cell, 400)
    expected = exact(cell, params, xs, credits)

    def errors(learner):
        def one(key):
            gradients, *_ = run(learner, cell, params, xs, credits, key)
            difference = jax.tree.map(jnp.subtract, gradients, expected)
            return sum(jnp.sum(a.reshape(400, -1) ** 2, axis=1) for a in jax.tree.leaves(difference))

        return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(3), 48)))

    return {name: errors(LONG[name](cell)) for name in names}


LONG = {
    "ok rank 4": lambda cell: ft.ok(cell, rank=4),
    "ok rank 4, block 8": lambda cell: ft.ok(cell, rank=4, block=8),
    "ok rank 1": lambda cell: ft.ok(cell, rank=1),
    "kf_rtrl": ft.kf_rtrl,
    "4 kf_rtrl": lambda cell: ft.average(ft.kf_rtrl(cell), 4),
}


def mean_error(name):
    """Mean and standard error over keys of the error at the end of blocks of 8, the worst moment."""
    error = long_run((name,), None)[name][:, 9::8].mean(axis=1)
    return error.mean(), error.std() / np.sqrt(len(error))


@pytest.mark.parametrize(
    ("better", "worse", "factor"),
    [
        ("ok rank 4, block 8", "ok rank 4", 1),
        ("ok rank 1", "kf_rtrl", 1),
        ("ok rank 4", "4 kf_rtrl", 1),
        ("4 kf_rtrl", "kf_rtrl", 1 / 3),
    ],
)
def test_error_over_a_long_stream_is_no_larger(better, worse, factor):
    (low, low_error), (high, high_error) = mean_error(better), mean_error(worse)
    assert low - 3 * low_error > 0
    assert low + 2 * low_error < factor * (high - 2 * high_error)


# Averages.


def test_gradient_of_an_average_is_the_mean_of_its_members(x64):
    cell, params, xs, credits, _ = problem("gru", 2, precision())
    one = ft.ok(cell, rank=1, block=2)
    *_, state = run(ft.average(one, 3), cell, params, xs, credits, lanes=2)
    shared = {name: getattr(state.members, name) for name in ("weights", "phase")}
    members = [
        jax.tree.map(lambda a, i=i: a[i], state.members._replace(weights=(), phase=())) for i in range(3)
    ]
    members = [member._replace(**shared) for member in members]
    gradients = [one.grad(params, member, credits[0]) for member in members]
    assert squared(jax.tree.map(jnp.subtract, gradients[0], gradients[1])) > 1e-6
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 3, *gradients)
    assert_close(ft.average(one, 3).grad(params, state, credits[0]), mean)


def test_an_average_is_unbiased():
    cell, params, xs, credits, expected = problem("rnn", None, precision())
    learner = ft.average(ft.kf_rtrl(cell, block=2), 4)
    keys = jax.random.split(jax.random.key(5), 2000)
    gradients = jax.vmap(lambda key: run(learner, cell, params, xs, credits, key)[0])(keys)
    for got, want in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        error = np.std(got, axis=0) / np.sqrt(len(keys))
        assert np.all(np.abs(np.mean(got, axis=0) - want) <= 5 * error + 1e-5)


# How a learner runs.


@pytest.mark.parametrize("name", ["rtrl", "uoro", "kf_rtrl", "ok", "ok block 3", "average"])
def test_a_long_float32_run_stays_finite(name):
    cell = ft.cells.highway(hidden=8, inputs=3)
    params = draw(cell, scale=0.3)
    learner = learner_of(name, cell, precision())

    @jax.jit
    def sizes(key):
        def step(state, key):
            x, credit = jax.random.normal(key, (2, 2, 8))
            state, _ = learner.step(params, state, x[:, :3])
            return state, squared(learner.grad(params, state, credit))

        first, second = jax.random.split(key)
        state = learner.init(first, params, 2)
        return jax.lax.scan(step, state, jax.random.split(second, 2000))[1]

    found = np.asarray(sizes(jax.random.key(0)))
    assert np.isfinite(found).all()
    # Noise neither grows with time nor dies out.
    early, late = found[100:1000].mean(), found[1000:].mean()
    assert early / 10 < late < 10 * early


@pytest.mark.parametrize("name", ["rtrl", "tbptt", "uoro block 3", "kf_rtrl", "ok", "average"])
def test_a_second_call_compiles_nothing(name):
    cell, params, xs, credits, _ = problem("rnn", 2, precision())
    learner = learner_of(name, cell, precision())
    (step, steps), (grad, grads) = traced(learner.step), traced(learner.grad)
    state = learner.init(jax.random.key(0), params, 2)
    for x, credit in zip(xs[:5], credits[:5], strict=True):
        state, _ = step(params, state, x)
        params = jax.tree.map(lambda a, g: a - 0.1 * g, params, grad(params, state, credit))
    assert len(steps) == len(grads) == 1


@pytest.mark.parametrize("name", ["rtrl block 3", "tbptt", "uoro", "kf_rtrl", "ok block 3", "average"])
def test_scan_is_the_python_loop(x64, name):
    cell, params, xs, credits, _ = problem("rnn", 2, precision())
    learner = learner_of(name, cell, precision())
    gradients, infos, state = run(learner, cell, params, xs, credits, lanes=2)
    step, grad = jax.jit(learner.step), jax.jit(learner.grad)
    loop = learner.init(jax.random.key(7), params, 2)
    for i, (x, credit) in enumerate(zip(xs, credits, strict=True)):
        loop, info = step(params, loop, x)
        got = grad(params, loop, credit), info
        assert_close(got, jax.tree.map(lambda a, i=i: a[i], (gradients, infos)), 1e-12)
    assert_close(loop.hidden, state.hidden, 1e-12)


@pytest.mark.parametrize("name", [name for name in LEARNERS if name not in ("rtrl", "uoro", "kf_rtrl")])
def test_steps_in_blocks_are_steps_and_sweep_is_the_sum_of_gradients(x64, name):
    cell, params, _, _, _ = problem("rnn", 2, precision())
    learner = learner_of(name, cell, precision())
    length = learner.block
    xs, credits = stream(cell, 3 * length, 2)
    restart = jnp.zeros((3 * length, 2), bool).at[jnp.array([1, 3]), 0].set(True)
    restart = restart.at[2 * length - 1 :: length, 1].set(True)
    expected, *_ = run(learner, cell, params, xs, credits, lanes=2, restart=restart)

    @jax.jit
    def nested(params, *streams):
        def one_step(state, inputs):
            i, x, credit, again = inputs
            state = learner.advance(params, learner.reset(at_phase(state, i), again), x)
            return state, learner.grad(params, state, credit)

        def one_block(state, inputs):
            state, gradients = jax.lax.scan(one_step, state, (jnp.arange(length), *inputs))
            total = learner.sweep(params, state, inputs[1])
            return learner.end_block(params, state)[0], (gradients, total)

        blocks = jax.tree.map(lambda a: a.reshape(3, length, *a.shape[1:]), streams)
        state = learner.init(jax.random.key(7), params, 2)
        return jax.lax.scan(one_block, state, blocks)[1]

    gradients, totals = nested(params, xs, credits, restart)
    assert_close(jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), gradients), expected)
    assert_close(totals, jax.tree.map(lambda a: jnp.sum(a, axis=1), gradients))


@pytest.mark.parametrize("name", ["rtrl", "tbptt", "uoro", "kf_rtrl", "ok"])
def test_there_is_no_gradient_before_the_first_step(name):
    cell = user_cell(lambda p, h, x: h + p["w"] @ x + p["b"], {"w": (3, 2), "b": (3,)})
    params, learner = draw(cell), LEARNERS[name](cell)
    read = jax.jit(lambda: learner.grad(params, learner.init(jax.random.key(0), params), jnp.ones(3)))
    assert squared(read()) == 0


@pytest.mark.parametrize("name", ["rtrl", "kf_rtrl", "kf_rtrl block 3", "ok", "average"])
def test_a_cell_of_elementwise_parameters_alone_is_tracked_exactly(x64, name):
    cell = user_cell(lambda p, h, x: jax.nn.sigmoid(p["d"]) * h + x, {"d": (3,)}, inputs=3)
    params, (xs, credits) = draw(cell), stream(cell, STEPS)
    gradients, *_ = run(LEARNERS[name](cell), cell, params, xs, credits)
    assert_close(gradients, exact(cell, params, xs, credits))


@pytest.mark.parametrize("name", ["rtrl", "rtrl block 3", "uoro block 3", "ok block 3"])
def test_a_cell_whose_derivative_is_constant_is_taken(x64, name):
    """Influence balancing: nothing of a step has to be remembered for its derivative."""
    chain = np.eye(3) / 2 + np.eye(3, k=1) / 2
    cell = user_cell(
        lambda p, h, x: jnp.asarray(chain) @ h + p["theta"] * jnp.array([1.0, 1.0, -1.0]),
        {"theta": ()},
    )
    params, (xs, credits) = draw(cell), stream(cell, 3)
    gradients, *_ = run(learner_of(name, cell, precision()), cell, params, xs, credits)
    expected = exact(cell, params, xs, credits)
    if name == "rtrl":
        assert_close(gradients, expected)
    else:
        assert_close(*(jax.tree.map(lambda a: a[:3], g) for g in (gradients, expected)))


# Signatures and arguments.

FACTORIES = (ft.rtrl, ft.tbptt, ft.uoro, ft.kf_rtrl, ft.ok)


@pytest.mark.parametrize("factory", FACTORIES)
def test_factories_take_a_cell_and_keywords(factory):
    cell, *others = inspect.signature(factory).parameters.values()
    assert cell.name == "cell" and cell.kind is cell.POSITIONAL_OR_KEYWORD
    assert others and all(parameter.kind is parameter.KEYWORD_ONLY for parameter in others)
    assert {parameter.name for parameter in others} & {"block", "window"}


def test_learners_have_the_same_fields_and_argument_order():
    assert ft.Learner._fields == ("init", "advance", "end_block", "grad", "sweep", "reset", "block")
    assert ft.Cell._fields == ("init", "initial_hidden", "step", "example_input", "output")
    for make in LEARNERS.values():
        learner = make(CELLS["rnn"]())
        for function, names in [
            (learner.init, ["key", "params", "lanes"]),
            (learner.step, ["params", "state", "x"]),
            (learner.advance, ["params", "state", "x"]),
            (learner.end_block, ["params", "state"]),
            (learner.grad, ["params", "state", "credit"]),
            (learner.reset, ["state", "restart"]),
        ]:
            assert list(inspect.signature(function).parameters) == names


@every_learner
def test_state_and_info_are_named_tuples_that_keep_their_structure(name):
    cell, params, xs, _, _ = problem("rnn", 2, precision())
    learner = learner_of(name, cell, precision())
    state = jax.eval_shape(lambda: learner.init(jax.random.key(0), params, 2))
    after, info = jax.eval_shape(learner.step, params, state, xs[0])
    assert hasattr(state, "_fields") and hasattr(info, "_fields") and "hidden" in state._fields
    assert jax.tree.structure(after) == jax.tree.structure(state)
    shapes = [[(a.shape, a.dtype, a.weak_type) for a in jax.tree.leaves(s)] for s in (state, after)]
    assert shapes[0] == shapes[1]


# Beneath the types that run in the tests only.
ok, kf_rtrl, uoro, rtrl, tbptt, average = map(
    inspect.unwrap, (ft.ok, ft.kf_rtrl, ft.uoro, ft.rtrl, ft.tbptt, ft.average)
)


def rnn():
    return ft.cells.rnn(hidden=3, inputs=2)


@pytest.mark.parametrize(
    ("call", "name", "remedy"),
    [
        (lambda n: ok(rnn(), rank=n), "rank", "for the exact influence matrix use rtrl(cell)"),
        (lambda n: ok(rnn(), rank=2, block=n), "block", "1 is the papers' algorithm"),
        (lambda n: kf_rtrl(rnn(), block=n), "block", "1 is the paper's algorithm"),
        (lambda n: uoro(rnn(), block=n), "block", "1 is the paper's algorithm"),
        (lambda n: rtrl(rnn(), block=n), "block", "1 is the classic algorithm"),
        (lambda n: tbptt(rnn(), window=n), "window", "use ok(cell, rank=16)"),
        (lambda n: average(rtrl(rnn()), n), "n", "1 is the learner itself"),
        (
            lambda n: rtrl(rnn()).init(jax.random.key(0), draw(rnn()), n),
            "lanes",
            "for a single stream leave it out",
        ),
    ],
    ids=["rank", "ok", "kf_rtrl", "uoro", "rtrl", "tbptt", "average", "lanes"],
)
def test_a_count_that_is_no_positive_int_is_refused_with_a_remedy(call, name, remedy):
    for value, kind in [(0, ValueError), (-3, ValueError), (1.5, TypeError), (True, TypeError)]:
        with pytest.raises(kind) as caught:
            call(value)
        message = str(caught.value)
        assert message.startswith(f"{name} must be an int >= 1; got {value}; ")
        assert remedy in message


ENGINES = {
    "window": lambda cell: ok(cell, rank=1, block=2),
    "window of one step": lambda cell: ok(cell, rank=1),
    "no window": ft.rflo,
    "dni": lambda cell: ft.contrib.dni(ft.contrib.with_synthesizer(cell)),
    "artbp": lambda cell: ft.contrib.artbp(cell, length=2),
}


@pytest.mark.parametrize("name", ENGINES)
def test_arguments_that_do_not_fit_the_state_are_refused_in_one_sentence(name):
    learner, params = ENGINES[name](rnn()), draw(rnn())
    if name == "dni":
        params = {"cell": params, "synthesizer": jnp.zeros((3, 4))}
    lanes, single = (learner.init(jax.random.key(0), params, lanes) for lanes in (2, None))
    other, (xs, credits) = jax.tree.map(lambda a: a[:-1], params), stream(rnn(), 2, 2)
    steps = learner.block
    for call, kind, message in (
        (
            lambda: learner.reset(lanes, jnp.ones(3, bool)),
            ValueError,
            "restart must have shape (2,); got (3,)",
        ),
        (
            lambda: learner.reset(lanes, True),
            ValueError,
            "restart must have shape (2,); got (); give one for each",
        ),
        (
            lambda: learner.reset(single, jnp.ones(1, bool)),
            ValueError,
            "restart must have shape (); got (1,)",
        ),
        (lambda: learner.reset(lanes, jnp.ones(2)), TypeError, "restart must be a bool array; got float32"),
        (lambda: learner.step(other, lanes, xs[0]), ValueError, "params must be shaped like cell.init"),
        (
            lambda: learner.grad(other, lanes, credits[0]),
            ValueError,
            "params must be shaped like cell.init",
        ),
        (
            lambda: learner.grad(params, lanes, credits[0, :1]),
            ValueError,
            "credit must have the shapes of state",
        ),
        (
            lambda: learner.grad(params, lanes, credits[0, 0]),
            ValueError,
            "credit must have the shapes of state",
        ),
        (
            lambda: learner.step(params, lanes, jnp.ones((3, 2))),
            ValueError,
            "x must be float32[2, 2], like cell",
        ),
        (
            lambda: learner.step(params, single, xs[0]),
            ValueError,
            "x must be float32[2], like cell.example_input(); ",
        ),
        (
            lambda: learner.sweep(params, lanes, noise(jnp.ones((3, 2, 3)), 0)),
            ValueError,
            f"axis of {steps}, the",
        ),
    ):
        with pytest.raises(kind) as caught:
            jax.eval_shape(call)
        assert message in str(caught.value)
        assert isinstance(caught.value, UserError) and "\n" not in str(caught.value)
    assert not np.any(learner.reset(single._replace(hidden=jnp.ones(3)), True).hidden)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda cell, learner: ft.ok(None, rank=1),
            "cell must be a Cell; got NoneType; take one of foretrace.c",
        ),
        (
            lambda cell, learner: ft.ok(print, rank=1),
            "cell must be a Cell; got builtin_function_or_method; ",
        ),
        (lambda cell, learner: ft.contrib.dni(None), "cell must be a Cell; got NoneType; "),
        (lambda cell, learner: ft.explain(learner), "cell must be a Cell; got Learner; "),
        (lambda cell, learner: ft.recommend(ft.Cell), "cell must be a Cell; got the class Cell; "),
        (
            lambda cell, learner: ft.online(cell),
            "learner must be a Learner; got Cell; make one of the cell, such",
        ),
        (lambda cell, learner: ft.average(cell, 2), "learner must be a Learner; got Cell; "),
        (
            lambda cell, learner: ft.run_blocks(cell, {}, (), (), print),
            "learner must be a Learner; got Cell; ",
        ),
        (
            lambda cell, learner: ft.learners.parse(3),
            "learner must be a str; got int; write its name, such as ok:8",
        ),
        (
            lambda cell, learner: ft.recommend(cell, memory="1GB"),
            "memory must be a number > 0; got '1GB'; give by",
        ),
        (
            lambda cell, learner: ft.uoro(cell, epsilon="small"),
            "epsilon must be a number > 0; got 'small'; ",
        ),
        (lambda cell, learner: ft.ok(cell, rank="8"), "rank must be an int >= 1; got '8'; "),
    ],
)
def test_what_is_no_cell_no_learner_or_no_number_is_refused_with_the_remedy(no_types, call, message):
    cell = rnn()
    with pytest.raises(UserTypeError, match=f"^{re.escape(message)}"):
        call(cell, ft.rtrl(cell))


@pytest.mark.parametrize("name", ["rtrl*2", "rflo*2", "tbptt:5*3"])
def test_copies_of_what_is_exact_or_biased_are_refused(name):
    with pytest.raises(
        UserError, match=r"^copies must be 1 for \w+, which is (exact|biased); got [23]; leave"
    ):
        ft.learners.parse(name)


def test_a_block_is_refused_where_there_is_none():
    with pytest.raises(UserError, match=r"^rflo has no block; got 'rflo/4'; write rflo\.$"):
        ft.learners.parse("rflo/4")


@pytest.mark.parametrize("epsilon", [0, -1.0, float("nan")])
def test_epsilon_must_be_positive(epsilon):
    with pytest.raises(ValueError, match=r"^epsilon must be a number > 0; got .*; 1e-7 is the default"):
        uoro(rnn(), epsilon=epsilon)
