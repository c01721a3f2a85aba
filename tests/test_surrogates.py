"""Derivatives of one's own: exact where they have tangents, refused where known backwards alone."""

import jax
import jax.numpy as jnp
import pytest

import foretrace as ft
from oracles import (
    assert_close,
    draw,
    exact,
    quick_compilation,  # noqa: F401
    run,
    stream,
    user_cell,
)

SHAPES = {"w": (3, 3), "v": (3, 2)}


def smooth(z):
    return z / (1 + jnp.abs(z))


def spike(z):
    return (z > 0).astype(z.dtype)


@jax.custom_jvp
def by_jvp(z):
    return spike(z)


@by_jvp.defjvp
def _(primals, tangents):
    return spike(*primals), jax.jvp(smooth, primals, tangents)[1]


@jax.custom_vjp
def by_vjp(z):
    return spike(z)


by_vjp.defvjp(lambda z: (spike(z), z), lambda z, credit: (jax.vjp(smooth, z)[1](credit)[0],))


def by_stop(z):
    return smooth(z) + jax.lax.stop_gradient(spike(z) - smooth(z))


def spiking(spike):
    """The reset of a spiking unit, too, sees the surrogate."""

    def step(p, h, x):
        z = p["w"] @ h + p["v"] @ x
        return 0.5 * h + spike(z) - 0.3 * spike(h)

    return step


@pytest.mark.parametrize("surrogate", [by_jvp, by_stop], ids=["custom_jvp", "stop_gradient"])
def test_a_surrogate_with_tangents_is_exact(x64, surrogate):
    cell = user_cell(spiking(surrogate), SHAPES)
    params, (xs, credits) = draw(cell), stream(cell, 5)
    # The oracle differentiates the custom_vjp, which JAX itself takes backwards.
    expected = exact(cell._replace(step=spiking(by_vjp)), params, xs, credits)
    assert_close(run(ft.rtrl(cell), cell, params, xs, credits)[0], expected)
    assert_close(run(ft.ok(cell, rank=4, block=2), cell, params, xs, credits)[0], expected)


def in_loop(p, h, x):
    return jax.lax.scan(lambda h, _: (spiking(by_vjp)(p, h, x), None), h, None, length=2)[0]


def in_choice(p, h, x):
    return jax.lax.cond(x[0] > 0, lambda: spiking(by_vjp)(p, h, x), lambda: h)


@pytest.mark.parametrize("step", [spiking(by_vjp), in_loop, in_choice])
def test_a_custom_vjp_is_refused_with_both_remedies(step):
    message = r"^cell.step must be differentiable forwards; got .*custom_jvp, or .*stop_gradient"
    with pytest.raises(TypeError, match=message):
        ft.structure_of(user_cell(step, SHAPES))


def test_a_custom_vjp_that_nothing_is_differentiated_through_is_taken():
    def step(p, h, x):
        return jnp.tanh(p["w"] @ h + p["v"] @ by_vjp(x)) + jax.lax.stop_gradient(by_vjp(h))

    assert len(ft.structure_of(user_cell(step, SHAPES)).groups) == 1


def test_a_callback_without_derivative_is_refused():
    def step(p, h, x):
        z = p["w"] @ h + p["v"] @ x
        return jax.pure_callback(lambda z: z, z, z)

    with pytest.raises(
        ValueError, match=r"^step must be differentiable .*around a callback jax.custom_jvp"
    ):
        user_cell(step, SHAPES)
