"""SnAp against a mask found by multiplying zeros, dense and sparse weights, and what the program allows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace.structure._sparsity import find_sparsity, sets_within
from oracles import (
    CELLS,
    assert_close,
    draw,
    exact,
    exact_lanes,
    precision,
    quick_compilation,  # noqa: F401
    run,
    stream,
    user_cell,
)

STEPS = 6
RING = np.eye(6) + np.roll(np.eye(6), 1, axis=1)  # every unit hears itself and one other


def ring_step(p, h, x):
    mask = jnp.asarray(RING, h.dtype)
    return jnp.tanh((mask * p["w"]) @ h + p["v"] @ x + p["b"])


def ring():
    """Sparse weights: a parameter reaches one more unit with every step."""
    return user_cell(ring_step, {"w": (6, 6), "v": (6, 2), "b": (6,)}, hidden=6)


def scaled_step(p, h, x):
    return p["gain"] * jnp.tanh(p["w"] @ h + p["v"] @ x)


def scaled():
    """One number for all units, beside a group."""
    return user_cell(scaled_step, {"w": (9, 9), "v": (9, 2), "gain": ()}, hidden=9)


def selected_step(p, h, x):
    h = jnp.where(x[0] > 0, h, -h)  # whatever the sign of an input
    return jnp.where(h > 0, h, 0.1 * h) * jax.nn.sigmoid(p["decay"]) + jnp.abs(p["v"] * x)


def selected():
    return user_cell(selected_step, {"decay": (2,), "v": (2,)}, hidden=2)


SPARSE = {**CELLS, "ring": ring, "scaled": scaled, "selected": selected}


def jacobians(cell, params, hidden, x):
    """State and immediate Jacobian, (S, S) and (S, P)."""
    flat, unravel = jax.flatten_util.ravel_pytree(hidden)
    weights, tree = jax.flatten_util.ravel_pytree(params)

    def step(weights, flat):
        return jax.flatten_util.ravel_pytree(cell.step(tree(weights), unravel(flat), x))[0]

    immediate, state = jax.jacobian(step, argnums=(0, 1))(weights, flat)
    return state, immediate


def brute_force(cell, params, xs, credits, order, seed=3):
    """Gradients by the definition: the mask is what is non-zero after `order` steps of generic RTRL."""
    jacobian = jax.jit(lambda p, h, x: jacobians(cell, p, h, x))
    state = immediate = 0.0
    for i in range(8):  # the union over inputs of both signs and several states
        hidden, x = stream(cell, 1, seed=seed + i)[::-1]
        found = jacobian(draw(cell, seed=i), *jax.tree.map(lambda a: a[0], (hidden, x)))
        state, immediate = (
            a + (np.asarray(b) != 0) for a, b in zip((state, immediate), found, strict=True)
        )
    mask = immediate
    for _ in range(order - 1):
        mask = immediate + state @ mask
    mask = jnp.asarray(mask > 0, precision())
    hidden, influence, out = cell.initial_hidden(), jnp.zeros(mask.shape), []
    _, tree = jax.flatten_util.ravel_pytree(params)
    for t in range(STEPS):
        x, credit = jax.tree.map(lambda a, t=t: a[t], (xs, credits))
        state, immediate = jacobian(params, hidden, x)
        influence = mask * (state @ influence + immediate)
        out.append(tree(jax.flatten_util.ravel_pytree(credit)[0] @ influence))
        hidden = cell.step(params, hidden, x)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *out), np.asarray(mask)


@pytest.mark.parametrize(
    ("cell_name", "order"),
    [
        *(("rnn", 1), ("gru", 1), ("lstm", 1), ("gain", 1), ("layers", 1), ("scaled", 1)),
        *(("ring", 1), ("ring", 2), ("ring", 4), ("selected", 1), ("layers", 2)),
    ],
)
def test_it_is_rtrl_under_the_mask_of_its_order(x64, cell_name, order):
    cell = SPARSE[cell_name]()
    params, (xs, credits) = draw(cell), stream(cell, STEPS)
    expected, mask = brute_force(cell, params, xs, credits, order)
    gradients, *_ = run(ft.snap(cell, order=order), cell, params, xs, credits)
    assert_close(gradients, expected)
    structure = ft.structure_of(cell, params)
    kept = sum(
        np.sum(sets.rows[:, None] >= 0, axis=0)[0] @ np.sum(sets.columns >= 0, axis=0) * sets.width
        for sets in sets_within(structure, find_sparsity(structure), order)
    )
    assert kept == np.sum(mask)


@pytest.mark.parametrize("cell_name", ["rnn", "gru", "gain", "ring", "scaled"])
def test_of_a_large_order_it_is_rtrl(x64, cell_name):
    cell = SPARSE[cell_name]()
    params, (xs, credits) = draw(cell), stream(cell, STEPS, 2)
    gradients, *_ = run(ft.snap(cell, order=6), cell, params, xs, credits, lanes=2)
    assert_close(gradients, exact_lanes(cell, params, xs, credits))


@pytest.mark.parametrize("cell_name", ["diagonal", "rtu", "elstm"])
@pytest.mark.parametrize("block", [1, 4])
def test_of_recurrences_within_units_order_one_or_two_is_rtrl(x64, cell_name, block):
    cell = getattr(ft.cells, cell_name)(hidden=3, inputs=2, dtype=precision())
    params, (xs, credits) = draw(cell), stream(cell, STEPS)
    order = 1 if cell_name == "elstm" else 2  # the other entry of a pair is one step away
    gradients, *_ = run(ft.snap(cell, order=order, block=block), cell, params, xs, credits)
    assert_close(gradients, exact(cell, params, xs, credits))


def test_inside_a_block_nothing_is_masked(x64):
    cell = CELLS["rnn"]()
    params, (xs, credits) = draw(cell), stream(cell, STEPS)
    gradients, *_ = run(ft.snap(cell, order=1, block=STEPS), cell, params, xs, credits)
    assert_close(gradients, exact(cell, params, xs, credits))


def test_after_a_block_the_past_is_that_of_block_one(x64):
    cell = CELLS["rnn"]()
    params, (xs, credits) = draw(cell), stream(cell, 7)
    *_, one = run(ft.snap(cell, order=1), cell, params, xs[:6], credits[:6])
    *_, three = run(ft.snap(cell, order=1, block=3), cell, params, xs, credits)
    assert_close(three.past, one.past)


def test_a_restart_forgets_the_past(x64):
    cell = CELLS["rnn"]()
    params, (xs, credits) = draw(cell), stream(cell, STEPS, 2)
    restart = jnp.zeros((STEPS, 2), bool).at[3, 0].set(True).at[4, 1].set(True)
    for learner in ft.snap(cell, order=6), ft.snap(cell, order=6, block=2):
        gradients, *_ = run(learner, cell, params, xs, credits, lanes=2, restart=restart)
        assert_close(gradients, exact_lanes(cell, params, xs, credits, restart))


def test_a_step_whose_places_move_is_taken_as_dense(x64):
    """A row chosen by an input: no parameter may be thought to reach less than it can."""

    def step(p, h, x):
        return 0.5 * h + p["rows"][x.astype(int)[0]] * jnp.cumsum(h)

    cell = user_cell(step, {"rows": (4, 3)}, hidden=jnp.zeros(3, precision()), inputs=1)
    params = draw(cell)
    structure = ft.structure_of(cell, params)
    assert find_sparsity(structure).immediate[0].all()
    xs, credits = jnp.array([[0.0], [3.0], [1.0], [3.0], [2.0]]), stream(cell, 5)[1]
    assert_close(
        run(ft.snap(cell, order=1), cell, params, xs, credits)[0], exact(cell, params, xs, credits)
    )


def test_a_parameter_that_reaches_nothing_has_no_gradient(x64):
    def step(p, h, x):
        return jnp.tanh(p["w"] @ h + p["v"] @ x + jnp.zeros(3, h.dtype) * p["off"])

    cell = user_cell(step, {"w": (3, 3), "v": (3, 2), "off": (3,)})
    params, (xs, credits) = draw(cell), stream(cell, 3)
    gradients, *_ = run(ft.snap(cell, order=3), cell, params, xs, credits)
    assert_close(gradients, exact(cell, params, xs, credits))


def test_memory_is_that_of_the_mask():
    cell = ring()
    state = jax.eval_shape(lambda key: ft.snap(cell, order=2).init(key, draw(cell)), jax.random.key(0))
    # In two steps every weight reaches two units: 12 weights of w that are not masked, and v and b.
    assert all(jnp.iscomplexobj(part) for part in state.past.parts)
    assert sum(2 * part.size for part in state.past.parts) == 2 * (12 + 12 + 6)


@pytest.mark.parametrize(("name", "remedy"), [("order", "immediate(cell)"), ("block", "1 is")])
@pytest.mark.parametrize(("value", "kind"), [(0, ValueError), (1.5, TypeError)])
def test_counts_are_checked(name, remedy, value, kind):
    with pytest.raises(kind, match=f"^{name} must be an int >= 1; got {value}") as caught:
        ft.snap.__wrapped__(CELLS["rnn"](), **({"order": 1} | {name: value}))
    assert remedy in str(caught.value)
