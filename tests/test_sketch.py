"""The sketch against the truncated singular value decomposition, and its certificate against the error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace._types import at_phase
from oracles import (
    CELLS,
    assert_close,
    draw,
    exact_lanes,
    precision,
    quick_compilation,  # noqa: F401
    run,
    stream,
)

STEPS = 6


def flat_step(cell, params):
    """The step of flat parameters and a flat state."""
    _, tree = jax.flatten_util.ravel_pytree(params)
    _, unravel = jax.flatten_util.ravel_pytree(cell.initial_hidden())

    def step(weights, flat, x):
        return jax.flatten_util.ravel_pytree(cell.step(tree(weights), unravel(flat), x))[0]

    return step, tree


def dense(cell, params, state):
    """The influence matrix that the past of a single stream stands for, (S, P), read unit by unit."""
    size = ft.structure_of(cell, params).state_size
    _, unravel = jax.flatten_util.ravel_pytree(cell.initial_hidden())
    learner_grad = jax.vmap(lambda credit: state(unravel(credit)))
    leaves = jax.tree.leaves(learner_grad(jnp.eye(size, dtype=precision())))
    return jnp.concatenate([leaf.reshape(size, -1) for leaf in leaves], axis=1)


@pytest.mark.parametrize("cell_name", ["rnn", "gain", "lstm"])
def test_it_is_the_truncated_decomposition_of_what_snap_leaves_out(x64, cell_name):
    cell, rank = CELLS[cell_name](), 1
    params, (xs, credits) = draw(cell), stream(cell, STEPS)
    weights = jax.flatten_util.ravel_pytree(params)[0]
    step, tree = flat_step(cell, params)
    jacobians = jax.jit(jax.jacobian(step, argnums=(1, 0)))
    flat = jax.flatten_util.ravel_pytree(cell.initial_hidden())[0]
    near = rest = np.zeros((flat.size, weights.size))
    mask = np.zeros((flat.size, weights.size), bool)
    for seed in range(4):
        other = jax.flatten_util.ravel_pytree(draw(cell, seed))[0]
        x, credit = (jax.tree.map(lambda a: a[0], t) for t in stream(cell, 1, seed=seed))
        mask |= np.asarray(jacobians(other, jax.flatten_util.ravel_pytree(credit)[0], x)[1] != 0)
    expected = []
    for x, credit in zip(
        xs, [jax.tree.map(lambda a, t=t: a[t], credits) for t in range(STEPS)], strict=True
    ):
        state, immediate = map(np.asarray, jacobians(weights, flat, x))
        now = state @ (near + rest) + immediate  # the present step is read exactly
        expected.append(tree(jax.flatten_util.ravel_pytree(credit)[0] @ now))
        moved = state @ near
        u, d, v = np.linalg.svd(state @ rest + moved * ~mask, full_matrices=False)
        near, rest = moved * mask + immediate, (u[:, :rank] * d[:rank]) @ v[:rank]
        flat = step(weights, flat, x)
    gradients, *_ = run(ft.sketch(cell, rank=rank), cell, params, xs, credits)
    assert_close(gradients, jax.tree.map(lambda *leaves: jnp.stack(leaves), *expected), 1e-7)


@pytest.mark.parametrize(("cell_name", "block"), [("rnn", 1), ("gru", 1), ("rnn", 3)])
def test_of_full_rank_it_is_rtrl(x64, cell_name, block):
    cell = CELLS[cell_name]()
    params, (xs, credits) = draw(cell), stream(cell, STEPS, 2)
    restart = jnp.zeros((STEPS, 2), bool).at[3, 0].set(True)
    learner = ft.sketch(cell, rank=9, block=block)
    gradients, infos, _ = run(learner, cell, params, xs, credits, None, 2, restart)
    assert_close(gradients, exact_lanes(cell, params, xs, credits, restart))
    assert np.all(infos.bound == 0)


@pytest.mark.parametrize(
    ("cell_name", "rank", "scale"), [("rnn", 1, 0.9), ("highway", 2, 0.8), ("gru", 1, 0.7)]
)
def test_the_error_is_never_above_the_certificate(x64, cell_name, rank, scale):
    """10,000 steps in all, half of them with restarts."""
    steps = {"rnn": 6000, "highway": 2000, "gru": 2000}[cell_name]
    cell = CELLS[cell_name]()
    params, (xs, _) = draw(cell, scale=scale), stream(cell, steps)
    learner = ft.sketch(cell, rank=rank)
    weights = jax.flatten_util.ravel_pytree(params)[0]
    step, _ = flat_step(cell, params)
    again = jnp.asarray(np.random.default_rng(0).random(steps) < 0.01) & (jnp.arange(steps) > steps // 2)

    @jax.jit
    def errors(params, weights):
        def one(carry, inputs):
            state, influence = carry
            x, begin = inputs
            state = learner.reset(state, begin)
            influence = jnp.where(begin, 0, influence)
            flat = jax.flatten_util.ravel_pytree(state.hidden)[0]
            moved, immediate = jax.jacobian(step, argnums=(1, 0))(weights, flat, x)
            influence = moved @ influence + immediate
            state = learner.advance(params, at_phase(state, 0), x)
            state, info = learner.end_block(params, at_phase(state, 1))
            at_start = at_phase(state, 0)
            got = dense(cell, params, lambda credit: learner.grad(params, at_start, credit))
            return (state, influence), (
                jnp.linalg.norm(got - influence),
                info.bound,
                jnp.linalg.norm(influence),
            )

        start = learner.init(jax.random.key(0), params), jnp.zeros((len(flat0), weights.size))
        return jax.lax.scan(one, start, (xs, again))[1]

    flat0 = jax.flatten_util.ravel_pytree(cell.initial_hidden())[0]
    error, bound, size = map(np.asarray, errors(params, weights))
    assert np.all(error <= bound + 1e-12 * size)
    assert np.median(error) > 1e-3 * np.median(size)  # there is something to certify
    assert np.isfinite(bound[:50]).all() and np.median(bound[1:20] / error[1:20]) < 50


@pytest.mark.parametrize(("name", "remedy"), [("rank", "use snap"), ("block", "1 is the paper's")])
@pytest.mark.parametrize(("value", "kind"), [(0, ValueError), (1.5, TypeError)])
def test_counts_are_checked(name, remedy, value, kind):
    with pytest.raises(kind, match=f"^{name} must be an int >= 1; got {value}") as caught:
        ft.sketch.__wrapped__(CELLS["rnn"](), **({"rank": 1} | {name: value}))
    assert remedy in str(caught.value)
