"""The sketch against the truncated singular value decomposition, and its certificate against the error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace._types import at_phase
from foretrace.learners import _sketch
from oracles import (
    CELLS,
    assert_close,
    built_in,
    draw,
    exact_lanes,
    noise,
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


def factors_of(cell, rank):
    """Random numbers in the place of H L, the past and the leaks of a step, and the matrix X they make."""
    rule = _sketch._SketchRule(ft.structure_of(cell), rank)
    size = rule.structure.state_size
    past = noise(rule.empty(), 1)
    left, _ = jnp.linalg.qr(past.left)
    jacobian = noise(jnp.zeros((size, size), precision()), 2, size**-0.5)
    leaks = [_sketch._leak(part, jacobian) for part in rule.sets]
    # A spectrum that falls, as it does in networks, where steps add little to what is there.
    near = tuple(0.1 * part for part in past.near)
    shape = (rank, -1)
    flat = jnp.concatenate([right.reshape(shape) for right in past.right], axis=1)
    turned = jnp.linalg.svd(flat, full_matrices=False)[2] * jnp.arange(1.0, rank + 1)[:, None]  # orthogonal
    ends = np.cumsum([right.size // rank for right in past.right])[:-1]
    parts = zip(jnp.split(turned, ends, axis=1), past.right, strict=True)
    rows = tuple(new.reshape(old.shape) for new, old in parts)
    past = past._replace(left=left, near=near, right=rows, squares=jnp.sum(turned**2, axis=1))
    moved = jacobian @ left / jnp.arange(1.0, rank + 1)[None]
    x = [
        moved @ right.reshape(rank, -1) + jnp.einsum("skg,kcfg->scfg", leak, near).reshape(size, -1)
        for right, near, leak in zip(past.right, past.near, leaks, strict=True)
    ]
    return moved, past, leaks, jnp.concatenate(x, axis=1)


@pytest.mark.parametrize("cell_name", ["rnn", "gain", "lstm", "gru"])
def test_the_product_with_the_transpose_is_not_formed_but_right(x64, cell_name):
    moved, past, leaks, x = factors_of(CELLS[cell_name](), 2)
    outer = _sketch._Outer(moved, past, leaks)
    assert_close(outer.times(jnp.eye(len(x))), x @ x.T)
    assert_close(outer.trace(), jnp.sum(x**2))


@pytest.mark.parametrize("size", [3, 32, 33, 60])
def test_directions_are_nearly_the_best_and_what_they_leave_out_is_told(x64, size):
    """Up to 32 units exactly the best."""
    moved, past, leaks, x = factors_of(ft.cells.rnn(hidden=size, inputs=2, dtype=precision()), 2)
    for start in past, past._replace(left=jnp.zeros_like(past.left)):
        left, squares, dropped = _sketch._directions(moved, start, leaks)
        rows = left.T @ x
        assert_close(rows @ rows.T, jnp.diag(squares))
        assert_close(left.T @ left, jnp.eye(2))
        least = jnp.linalg.norm(jnp.linalg.svd(x)[1][2:])
        assert_close(dropped, jnp.linalg.norm(x - left @ (left.T @ x)), 1e-6)
        assert least * (1 - 1e-9) <= dropped <= least * (1 + 1e-6 if size <= 32 else 1.02)


@pytest.mark.parametrize(
    ("cell_name", "rank", "scale"),
    [("rnn", 1, 0.9), ("highway", 2, 0.8), ("gru", 1, 0.7), ("rnn of 40", 4, 0.05)],
)
def test_the_error_is_never_above_the_certificate(x64, cell_name, rank, scale):
    """More than 10,000 steps in all, half of them with restarts."""
    steps = {"rnn": 6000, "rnn of 40": 300}.get(cell_name, 2000)
    early = 4 if cell_name == "rnn of 40" else 20  # (4) grows by a norm that grows with the size
    cell = (CELLS | {"rnn of 40": built_in(ft.cells.rnn, hidden=40)})[cell_name]()
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
    assert np.isfinite(bound[:50]).all() and np.median(bound[1:early] / error[1:early]) < 50


@pytest.mark.parametrize(("name", "remedy"), [("rank", "use snap"), ("block", "1 is the paper's")])
@pytest.mark.parametrize(("value", "kind"), [(0, ValueError), (1.5, TypeError)])
def test_counts_are_checked(name, remedy, value, kind):
    with pytest.raises(kind, match=f"^{name} must be an int >= 1; got {value}") as caught:
        ft.sketch.__wrapped__(CELLS["rnn"](), **({"rank": 1} | {name: value}))
    assert remedy in str(caught.value)
