"""A structure is found whatever flags of JAX a user has set."""

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

FLAGS = {
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_enable_checks": True,
    "jax_disable_jit": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_check_tracer_leaks": True,
}


def undefined_below_zero(p, h, x):
    """Not finite at most of the points at which a structure is tried, with a loop and a choice."""
    z = p["w"] @ h + p["v"] @ jnp.log(x)
    z = jax.lax.fori_loop(0, 2, lambda i, z: jnp.tanh(z + 0.1 * i.astype(z.dtype)), z)
    return jax.lax.cond(x[0] > 1, lambda: z, lambda: 0.5 * z)


@pytest.mark.parametrize(
    "flags", [["jax_debug_nans"], ["jax_disable_jit"], FLAGS], ids=["nans", "no jit", "all"]
)
def test_what_learners_are_built_from_is_found_whatever_flags_are_set(x64, flags):
    def make():
        cell = user_cell(undefined_below_zero, {"w": (3, 3), "v": (3, 2)}, inputs=jnp.full(2, 0.01))
        return cell, [ft.rtrl(cell), ft.ok(cell, rank=4)], ft.explain(cell)

    before = {flag: getattr(jax.config, flag) for flag in flags}
    try:
        for flag in flags:
            jax.config.update(flag, FLAGS[flag])
        cell, learners, table = make()
    finally:
        for flag, value in before.items():
            jax.config.update(flag, value)
    assert str(table) == str(make()[-1])
    params, (xs, credits) = draw(cell), stream(cell, 4)
    xs = jnp.abs(xs) + 0.5
    expected = exact(cell, params, xs, credits)
    for learner in learners:
        assert_close(run(learner, cell, params, xs, credits)[0], expected)
