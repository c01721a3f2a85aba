"""low_rank, and the window that keeps a block more."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace.testing import check_learner
from oracles import (
    CELLS,
    all_signs,
    assert_close,
    assert_unbiased,
    draw,
    exact_lanes,
    in_turn,
    precision,
    run,
    signs_from,
    stream,
    user_cell,
)

AGED = {
    "low_rank": partial(ft.low_rank, rank=1, probes=1, block=2),
    "low_rank of full rank": lambda cell: ft.low_rank(cell, rank=3, probes=1, block=2),
    "ok": partial(ft.ok, rank=2, block=2, age=1),
    "kf_rtrl": partial(ft.kf_rtrl, block=2, age=1),
    "uoro": partial(ft.uoro, block=2, age=1),
}


@pytest.mark.parametrize("name", AGED)
@pytest.mark.parametrize("cell_name", ["rnn", "gru", "gain", "layers"])
def test_exact_while_nothing_is_older_than_two_blocks(x64, cell_name, name):
    cell = CELLS[cell_name]()
    params, (xs, credits) = draw(cell), stream(cell, 4, 2)
    restart = jnp.zeros((4, 2), bool).at[3, 1].set(True)
    gradients, *_ = run(AGED[name](cell), cell, params, xs, credits, lanes=2, restart=restart)
    assert_close(gradients, exact_lanes(cell, params, xs, credits, restart))


@pytest.mark.parametrize("cell_name", ["rnn", "gru", "gain", "layers", "lstm"])
def test_exact_at_the_rank_of_the_state(x64, cell_name):
    cell = CELLS[cell_name]()
    params, (xs, credits) = draw(cell), stream(cell, 11, 2)
    restart = jnp.zeros((11, 2), bool).at[jnp.array([4, 7]), jnp.array([0, 1])].set(True)
    size = ft.structure_of(cell).state_size
    learner = ft.low_rank(cell, rank=size, block=2)
    gradients, infos, _ = run(learner, cell, params, xs, credits, lanes=2, restart=restart)
    assert_close(gradients, exact_lanes(cell, params, xs, credits, restart))
    assert not np.any(infos.variance) and not np.any(infos.residual)


# Unbiasedness, over every sign vector.


SMALL = {
    "rnn": lambda: ft.cells.rnn(hidden=3, inputs=1, dtype=precision()),
    "gru": lambda: ft.cells.gru(hidden=3, inputs=1, dtype=precision()),
    "gain": CELLS["gain"],
}
TWO = partial(ft.low_rank, rank=2, probes=1, block=2)


@pytest.mark.parametrize(
    ("cell_name", "make", "restart_at"),
    [
        ("rnn", AGED["low_rank"], None),
        ("rnn", AGED["low_rank"], 1),
        ("gru", AGED["low_rank"], None),
        ("gain", AGED["low_rank"], None),
        ("gain", TWO, 1),
        ("rnn", partial(ft.ok, rank=1, block=2, age=1), None),
        ("rnn", partial(ft.ok, rank=1, block=1, age=1), None),
        ("rnn", AGED["kf_rtrl"], 1),
        ("gru", AGED["uoro"], 1),
    ],
)
def test_mean_over_all_signs_is_rtrl(x64, cell_name, make, restart_at):
    cell = SMALL[cell_name]()
    params, xs = draw(cell, scale=0.8), stream(cell, 8)[0]
    assert_unbiased(make(cell), cell, params, xs, restart_at, source=in_turn, idle=1)


def test_without_the_probe_for_what_the_basis_misses_the_mean_is_wrong(x64):
    cell = SMALL["rnn"]()
    params, xs = draw(cell, scale=0.8), stream(cell, 8)[0]
    learner = ft.low_rank(cell, rank=1, probes=1, block=2, unbiased=False)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_unbiased(learner, cell, params, xs, source=in_turn, idle=1)


@pytest.mark.parametrize("cell_name", ["rnn", "gru", "gain"])
def test_weights_that_change_at_every_step_are_each_steps_own(x64, cell_name):
    cell = CELLS[cell_name]()
    params, (xs, credits) = draw(cell), stream(cell, 9, 2)

    def gradients(learner):
        def step(carry, inputs):
            params, state = carry
            state, _ = learner.step(params, state, inputs[0])
            gradient = learner.grad(params, state, inputs[1])
            params = jax.tree.map(lambda p, g: p - 0.3 * jnp.tanh(g), params, gradient)
            return (params, state), gradient

        start = params, learner.init(jax.random.key(0), params, lanes=2)
        return jax.jit(lambda: jax.lax.scan(step, start, (xs, credits))[1])()

    assert_close(gradients(AGED["low_rank of full rank"](cell)), gradients(ft.rtrl(cell)))


# One compression against its definition.


def of_past(structure, past):
    """The influence matrix L W, params-shaped with leaves (S, ..)."""
    matrices = [jnp.einsum("rs,rfz->sfz", past.left, rows) for rows in past.right]
    dense = [
        (past.left.T @ rows).reshape(-1, *structure.leaves[leaf.leaf].shape)
        for rows, leaf in zip(past.dense, structure.dense, strict=True)
    ]
    return jax.vmap(structure.gradient)(matrices, dense)


def compressions(cell, *pairs, blocks=4):
    """The target (2), and its compressions by (learner, keys or signs): influence matrices and infos."""
    learner, params, structure = pairs[0][0](cell), draw(cell), ft.structure_of(cell)
    xs, _ = stream(cell, blocks * learner.block)

    def every():
        state = learner.init(jax.random.key(1), params)
        for i, x in enumerate(xs):
            if i % learner.block == 0 and i:
                state, _ = learner.end_block(params, state)
            state = learner.advance(params, state, x)
        # What every unit credit at the end finds in all that is older than the newest block.
        alone = state._replace(restarts=state.restarts.at[learner.block].set(True))
        credits = jax.vmap(structure.unravel)(jnp.eye(structure.state_size, dtype=structure.dtype))
        read = jax.vmap(lambda credit, state: learner.grad(params, state, credit), in_axes=(0, None))
        target = jax.tree.map(jnp.subtract, read(credits, state), read(credits, alone))

        def one(end_block, draw):
            if jnp.issubdtype(draw.dtype, jax.dtypes.prng_key):
                new, info = end_block(params, state._replace(key=draw))
            else:
                with signs_from(in_turn(draw)):
                    new, info = end_block(params, state._replace(key=jax.random.clone(state.key)))
            return of_past(structure, jax.tree.map(lambda a: a[0], new.past)), info

        return target, [jax.vmap(partial(one, make(cell).end_block))(draws) for make, draws in pairs]

    target, results = jax.jit(every)()
    return flat(target, 1), *((flat(pasts, 2), infos) for pasts, infos in results)


def flat(tree, leading):
    """A params-shaped tree with so many leading axes, its parameters as one axis."""
    return np.concatenate([leaf.reshape(*leaf.shape[:leading], -1) for leaf in jax.tree.leaves(tree)], -1)


@pytest.mark.parametrize("cell_name", ["rnn", "gru", "gain", "layers"])
def test_error_of_every_draw_is_known_beforehand(x64, cell_name):
    # With rank + probes directions in a state of three the basis misses nothing, so that (5) is all.
    keys = jax.random.split(jax.random.key(2), 16)
    target, (pasts, infos) = compressions(CELLS[cell_name](), (TWO, keys))
    errors = np.sum((pasts - target) ** 2, axis=(1, 2))
    assert np.all(infos.variance > 0)
    np.testing.assert_allclose(errors, infos.variance, rtol=1e-7)
    np.testing.assert_array_equal(infos.residual, 0)


@pytest.mark.parametrize("cell_name", ["rnn", "gru", "gain"])
def test_basis_projects_and_residual_estimates_what_it_misses(x64, cell_name):
    make = partial(ft.low_rank, rank=1, probes=1, block=2)
    # Of the same key, and so the same basis.
    target, (pasts, infos), (projections, _) = compressions(
        SMALL[cell_name](), (make, all_signs(6)), (partial(make, unbiased=False), all_signs(2))
    )
    projection = projections.mean(axis=0)
    scale = np.sum(target**2)
    assert np.linalg.matrix_rank(projection, tol=1e-9 * np.sqrt(scale)) == 2
    # Of U U^T T: what it leaves is at right angles to it.
    assert np.max(np.abs(projection.T @ (target - projection))) < 1e-12 * scale
    missed = np.sum((target - projection) ** 2)
    assert missed > 1e-9 * scale
    np.testing.assert_allclose(np.mean(infos.residual), missed, rtol=1e-9)
    np.testing.assert_allclose(pasts.mean(axis=0), target, atol=1e-12 * np.sqrt(scale))


# Numbers that are hard to compute with.


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-3, 1e3, 1e6])
def test_float32_takes_credits_through_tiny_and_huge_factors(scale):
    cell = CELLS["gru"]()
    params, (xs, credits) = draw(cell), stream(cell, 9, 2)
    xs = (xs * scale).astype(xs.dtype).at[:, 1].set(xs[:, 0])  # two lanes alike, of parallel factors
    gradients, infos, _ = run(AGED["low_rank of full rank"](cell), cell, params, xs, credits, lanes=2)
    assert_close(gradients, exact_lanes(cell, params, xs, credits), 1e-4)
    gradients, infos, _ = run(AGED["low_rank"](cell), cell, params, xs, credits, lanes=2)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((gradients, infos)))


def test_a_step_that_divides_has_no_trouble_with_the_block_before_the_first(x64):
    """The older block is computed with before there is one."""

    def step(p, h, x):
        return jnp.tanh((p["w"] / jnp.sum(p["w"] ** 2)) @ h / (2 + x[0]) + p["v"] @ x)

    cell = user_cell(step, {"w": (3, 3), "v": (3, 2)})
    params, (xs, credits) = draw(cell), stream(cell, 7)
    with jax.debug_nans(True):
        gradients, *_ = run(AGED["low_rank of full rank"](cell), cell, params, xs, credits)
    lanes = jax.tree.map(lambda a: a[:, None], (xs, credits))
    assert_close(gradients, exact_lanes(cell, params, *lanes))


@pytest.mark.parametrize("cell_name", ["gru", "gain"])
def test_keeps_to_the_protocol(cell_name):
    check_learner(partial(ft.low_rank, rank=2, probes=1, block=2), CELLS[cell_name]())


@pytest.mark.parametrize("make", [partial(ft.ok, rank=1), ft.kf_rtrl, ft.uoro])
@pytest.mark.parametrize("age", [-1, 2, True])
def test_an_age_of_anything_but_no_block_or_one_is_refused(make, age):
    with pytest.raises(ValueError, match="age must be 0 or 1, in blocks; got"):
        make(CELLS["rnn"](), age=age)


def test_a_rank_above_the_state_is_refused():
    with pytest.raises(ValueError, match="rank must be at most the 3 numbers of the hidden state; got 4"):
        ft.low_rank(CELLS["rnn"](), rank=4)
    for size in "rank", "probes", "block":
        with pytest.raises(ValueError, match=f"{size} must be an int >= 1; got 0"):
            ft.low_rank(CELLS["rnn"](), **{size: 0})
