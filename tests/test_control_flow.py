"""Cells with choices and loops in their step: gradients are those of the unrolled loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace._types import Cell
from oracles import (
    assert_close,
    draw,
    exact,
    exact_lanes,
    noise,
    quick_compilation,  # noqa: F401
    run,
    stream,
    user_cell,
)

STEPS = 6
SHAPES = {"w": (3, 3), "v": (3, 2)}


def preact(p, h, x):
    return p["w"] @ h + p["v"] @ x


def ode(p, h, x):
    return jax.lax.scan(lambda h, _: (h + 0.2 * (jnp.tanh(preact(p, h, x)) - h), None), h, None, length=4)[
        0
    ]


def scanned_inputs(p, h, x):
    """A loop that also reads, counts and returns something at every turn."""

    def turn(carry, number):
        h, count = carry
        return (jnp.tanh(preact(p, h, x) * number), count + 1), h[:2]

    (h, count), path = jax.lax.scan(turn, (h, 0), jnp.arange(1.0, 4.0, dtype=h.dtype))
    return h * count.astype(h.dtype) + jnp.pad(path.sum(0), (0, 1))


def counted(p, h, x):
    return jax.lax.fori_loop(0, 3, lambda i, h: jnp.tanh(preact(p, h, x) + 0.1 * i.astype(h.dtype)), h)


def chosen(p, h, x):
    return jax.lax.cond(x[0] > 0, lambda: jnp.tanh(preact(p, h, x)), lambda: 0.9 * h)


def switched(p, h, x):
    index = jnp.clip(jnp.round(2 * x[0]), -1, 1).astype(int) + 1
    ways = [lambda h: 0.5 * h, lambda h: jnp.tanh(p["w"] @ h), lambda h: jnp.sin(p["v"] @ x) * h]
    return jax.lax.switch(index, ways, h)


def guarded(p, h, x):
    """The logarithm is infinite where its branch is not taken."""
    z = preact(p, h, x)
    return jax.lax.cond(h[0] > 0, lambda: jnp.tanh(z + jnp.log(h[0])), lambda: jnp.tanh(z) + 0.3)


def choice_in_loop(p, h, x):
    def turn(h, number):
        up, down = (lambda h: jnp.tanh(preact(p, h, x))), (lambda h: h - 0.1 * number)
        return jax.lax.cond(h[0] > 0, up, down, h), None

    return jax.lax.scan(turn, h, jnp.arange(3, dtype=h.dtype))[0]


def loop_in_choice(p, h, x):
    def nested():
        return jax.lax.cond(h[1] > 0, lambda: ode(p, jnp.sqrt(h[1]) * h, x), lambda: p["w"] @ h)

    return jax.lax.cond(x[0] > 0, nested, lambda: 0.5 * h)


def data_loop(p, h, x):
    """A loop whose number of turns is not known, over numbers that nothing is differentiated through."""
    n = jax.lax.while_loop(lambda n: n < jnp.abs(x[0]) * 3, lambda n: n + 1, jnp.zeros((), x.dtype))
    return jnp.tanh(preact(p, h, x) + n)


STEPS_OF = [
    ode,
    scanned_inputs,
    counted,
    chosen,
    switched,
    guarded,
    choice_in_loop,
    loop_in_choice,
    data_loop,
]
by_step = pytest.mark.parametrize("step", STEPS_OF, ids=lambda step: step.__name__)


@by_step
def test_rtrl_is_the_gradient_of_the_unrolled_loss(x64, step):
    cell = user_cell(step, SHAPES)
    params, (xs, credits) = draw(cell), stream(cell, STEPS, 2)
    expected = exact_lanes(cell, params, xs, credits)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(expected))
    for block in (1, 4):
        gradients, *_ = run(ft.rtrl(cell, block=block), cell, params, xs, credits, lanes=2)
        assert_close(gradients, expected)


@by_step
def test_sparse_and_windowed_learners_agree_with_it(x64, step):
    cell = user_cell(step, SHAPES)
    params, (xs, credits) = draw(cell), stream(cell, 4)
    expected = exact(cell, params, xs, credits)
    for learner in ft.snap(cell, order=4), ft.uoro(cell, block=4):
        assert_close(run(learner, cell, params, xs, credits)[0], expected)


@pytest.mark.parametrize("step", [chosen, guarded, data_loop], ids=lambda step: step.__name__)
def test_a_weight_in_a_branch_factorises(x64, step):
    cell = user_cell(step, SHAPES)
    (group,) = ft.structure_of(cell).groups
    assert {member.path for member in group.members} == {"w", "v"}
    params, (xs, credits) = draw(cell), stream(cell, 3)
    assert_close(run(ft.ok(cell, rank=3), cell, params, xs, credits)[0], exact(cell, params, xs, credits))


def test_a_loop_of_unknown_length_is_refused_with_a_remedy():
    def step(p, h, x):
        return jax.lax.while_loop(lambda h: h[0] < 1, lambda h: h + jnp.tanh(preact(p, h, x)) ** 2, h)

    def init(key):
        return noise({name: jnp.zeros(shape) for name, shape in SHAPES.items()}, 0)

    with pytest.raises(ValueError, match=r"^step must be differentiable backwards; got .*lax.scan"):
        ft.cell(step, init=init, hidden=3, inputs=2)
    cell = Cell(init, lambda: jnp.zeros(3), step, lambda: jnp.zeros(2))
    with pytest.raises(ValueError, match=r"^cell.step must be differentiable .*lax.while_loop.*lax.scan"):
        ft.structure_of(cell)
