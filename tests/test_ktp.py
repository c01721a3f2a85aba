"""KTP: unbiased over every sign vector, exact while nothing is mixed, as small as it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace.learners._kronecker import mix
from oracles import (
    CELLS,
    all_signs,
    assert_close,
    basis,
    draw,
    exact_lanes,
    influence,
    precision,
    quick_compilation,  # noqa: F401
    run,
    signs_from,
    stream,
)


def mean_over_signs(learner, cell, params, xs, vary=True):
    """The mean influence after all steps over every sign; the draws of one push have signs of their own."""
    counts = []

    def counted(count):
        counts.append(count)
        return jnp.ones(count)

    start = learner.init(jax.random.key(0), params)
    with signs_from(counted):
        jax.eval_shape(lambda *args: learner.end_block(*args), params, start)  # traced every time
    width, ends = sum(counts), len(xs) - 1

    def after(signs):
        state = learner.advance(params, start, xs[0])
        for end in range(ends):
            left = list(jnp.split(signs[end], np.cumsum(counts)[:-1]))
            with signs_from(lambda count, left=left: left.pop(0)):
                state, _ = learner.end_block(params, state)
            state = learner.advance(params, state, xs[end + 1])
        return jax.vmap(lambda credit: learner.grad(params, state, credit))(basis(cell.initial_hidden()))

    signs = all_signs(width * ends).reshape(-1, ends, width)
    signs = signs if vary else signs[-1:]
    return jax.tree.map(lambda a: jnp.mean(a, axis=0), jax.jit(jax.vmap(after))(signs))


@pytest.mark.parametrize(("hidden", "rank", "steps"), [(2, 1, 3), (3, 2, 2), (3, 1, 2)])
def test_mean_over_all_signs_is_rtrl(x64, hidden, rank, steps):
    cell = ft.cells.rnn(hidden=hidden, inputs=1, dtype=precision())
    params, xs = draw(cell, scale=0.8), stream(cell, steps)[0]
    expected = jax.tree.map(lambda a: a[-1], influence(cell, params, xs))
    learner = ft.ktp(cell, rank=rank)
    assert_close(mean_over_signs(learner, cell, params, xs), expected)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_close(mean_over_signs(learner, cell, params, xs, vary=False), expected)


def test_rows_that_are_not_orthogonal_are_reduced_without_bias(x64):
    """Of the LSTM, whose pre-activations act on c and on h."""
    cell = ft.cells.lstm(hidden=1, inputs=1, dtype=precision())
    params, xs = draw(cell, scale=0.8), stream(cell, 3)[0]
    expected = jax.tree.map(lambda a: a[-1], influence(cell, params, xs))
    assert_close(mean_over_signs(ft.ktp(cell, rank=1), cell, params, xs), expected)


def test_dense_leaves_are_exact(x64):
    cell = CELLS["gain"]()
    params, (xs, credits) = draw(cell), stream(cell, 5, 2)
    gradients, *_ = run(ft.ktp(cell, rank=2), cell, params, xs, credits, lanes=2)
    expected = exact_lanes(cell, params, xs, credits)
    for name in "decay", "gain":
        assert_close(gradients[name], expected[name])


@pytest.mark.parametrize("block", [1, 3])
def test_nothing_is_left_after_a_restart_and_a_first_block_is_exact(x64, block):
    cell = CELLS["highway"]()
    params, (xs, credits) = draw(cell), stream(cell, 4, 2)
    learner = ft.ktp(cell, rank=3, block=block)
    restart = jnp.zeros((4, 2), bool).at[3].set(True)
    gradients, *_ = run(learner, cell, params, xs, credits, None, 2, restart)
    expected = exact_lanes(cell, params, xs, credits, restart)
    for steps in slice(0, block), slice(3, 4):
        assert_close(*(jax.tree.map(lambda a, s=steps: a[s], g) for g in (gradients, expected)))


def test_of_full_rank_one_push_of_the_first_step_is_exact(x64):
    cell = CELLS["highway"]()
    params, (xs, credits) = draw(cell), stream(cell, 2)
    gradients, infos, _ = run(ft.ktp(cell, rank=4), cell, params, xs, credits)
    assert_close(gradients, exact_lanes(cell, params, xs[:, None], credits[:, None]))
    assert np.all(np.asarray(infos.immediate) == 0)


def test_mixing_has_the_diagonal_in_the_mean(x64):
    d = jnp.array([3.0, 1.0, 0.5, 0.4, 0.0])
    total = 0
    for signs in all_signs(5):
        with signs_from(lambda count, signs=signs: signs):
            basis, info = mix(jax.random.key(0), d, 2)
        total = total + basis @ basis.T
        error = jnp.sum((basis @ basis.T - jnp.diag(d)) ** 2)
        assert_close(error, info.variance)
    assert_close(total / 32, jnp.diag(d))


def test_memory_is_that_of_vectors():
    cell, rank = ft.cells.rnn(hidden=16, inputs=3), 2
    state = jax.eval_shape(lambda key: ft.ktp(cell, rank=rank).init(key, draw(cell)), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(state.past)) == 20 + rank * (16 + 16)


@pytest.mark.parametrize(("name", "remedy"), [("rank", "use kf_rtrl"), ("block", "1 is the paper's")])
@pytest.mark.parametrize(("value", "kind"), [(0, ValueError), (1.5, TypeError)])
def test_counts_are_checked(name, remedy, value, kind):
    with pytest.raises(kind, match=f"^{name} must be an int >= 1; got {value}") as caught:
        ft.ktp.__wrapped__(CELLS["rnn"](), **({"rank": 1} | {name: value}))
    assert remedy in str(caught.value)
