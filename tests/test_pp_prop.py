"""pp-prop against sums over all earlier steps, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace.cells._lstm import LSTMHidden
from oracles import (
    CELLS,
    assert_close,
    draw,
    quick_compilation,  # noqa: F401
    run,
    stream,
    user_cell,
)

STEPS = 6


def leaky_step(p, h, x, others=None, shift=0.0):
    """`others` is what the weights see of the state; `shift` is added to z."""
    others = h if others is None else others
    return 0.8 * h + 0.2 * jnp.tanh(p["w"] @ others + p["v"] @ x + p["b"] + shift)


def leaky():
    return user_cell(leaky_step, {"w": (3, 3), "v": (3, 2), "b": (3,)})


def adaptive_step(p, h, x, others=None, shift=0.0):
    """Two numbers per unit, and a gain of each unit beside the weights."""
    others = h if others is None else others
    z = p["w"] @ jnp.tanh(others["v"] - others["a"]) + p["u"] @ x + shift
    a = 0.9 * h["a"] + jax.nn.sigmoid(p["rise"]) * jnp.tanh(h["v"])
    return {"v": 0.7 * h["v"] - 0.3 * h["a"] + z, "a": a}


def adaptive():
    shapes = {"w": (3, 3), "u": (3, 2), "rise": (3,)}
    return user_cell(adaptive_step, shapes, hidden={"v": 3, "a": 3})


def lstm_step(p, h, x, others=None, shift=0.0):
    others = h if others is None else others
    z = x @ p["input"] + others.h @ p["recurrent"] + p["bias"] + shift
    i, f, g, o = jnp.split(z, 4)
    c = jax.nn.sigmoid(f) * h.c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return LSTMHidden(c, jax.nn.sigmoid(o) * jnp.tanh(c))


# Cell, its step, size of z, and for each weight what multiplies it, whether its rows are those of z.
CASES = {
    "leaky": (leaky, leaky_step, 3, {"w": lambda h, x: h, "v": lambda h, x: x, "b": None}, True),
    "adaptive": (
        adaptive,
        adaptive_step,
        3,
        {"w": lambda h, x: jnp.tanh(h["v"] - h["a"]), "u": lambda h, x: x},
        True,
    ),
    "lstm": (
        CELLS["lstm"],
        lstm_step,
        8,
        {"recurrent": lambda h, x: h.h, "input": lambda h, x: x, "bias": None},
        False,
    ),
}


def written_out(name, params, xs, credits, span):
    """Gradients at every step: sums over all steps before, each with its own product of Jacobians."""
    make, step, size, inputs, rows_first = CASES[name]
    hidden, a = make().initial_hidden(), (span - 1) / (span + 1)
    _, unravel = jax.flatten_util.ravel_pytree(hidden)
    flat = lambda tree: jax.flatten_util.ravel_pytree(tree)[0]  # noqa: E731
    own, slopes, gains, factors, out = [], [], [], [], []

    @jax.jit
    def linearised(params, hidden, x):
        h, zero = flat(hidden), jnp.zeros(size)
        blind = lambda h: flat(step(params, unravel(h), x, hidden))  # noqa: E731
        shifted = lambda z: flat(step(params, hidden, x, hidden, z))  # noqa: E731
        gained = lambda rise: flat(step(params | {"rise": rise}, hidden, x))  # noqa: E731
        gain = jax.jacobian(gained)(params["rise"]) if "rise" in params else jnp.zeros_like(h)
        return jax.jacobian(blind)(h), jax.jacobian(shifted)(zero), gain

    for t in range(STEPS):
        x, credit = jax.tree.map(lambda leaf, t=t: leaf[t], (xs, credits))
        for so_far, new in zip((own, slopes, gains), linearised(params, hidden, x), strict=True):
            so_far.append(new)
        factors.append({key: np.ones(1) if f is None else f(hidden, x) for key, f in inputs.items()})
        hidden = step(params, hidden, x)
        past = np.eye(len(flat(hidden)))
        after = after_gain = 0.0
        for k in range(t, -1, -1):
            share = (1 - a) * a ** (t - k) / (1 - a ** (t + 1))
            after, after_gain = after + share * past @ slopes[k], after_gain + share * past @ gains[k]
            past = past @ own[k]
        unit = flat(credit) @ after
        gradient = {"rise": flat(credit) @ after_gain} if "rise" in params else {}
        for key, f in inputs.items():
            if f is None:
                gradient[key] = unit
                continue
            before = sum(a ** (t - k) * factors[k][key] for k in range(t + 1))
            gradient[key] = jnp.outer(unit, before) if rows_first else jnp.outer(before, unit)
        out.append(gradient)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *out)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("span", [2, 5])
def test_gradients_are_products_of_sums_over_all_steps(x64, name, span):
    cell = CASES[name][0]()
    params, (xs, credits) = draw(cell), stream(cell, STEPS)
    gradients, *_ = run(ft.pp_prop(cell, span=span), cell, params, xs, credits)
    assert_close(gradients, written_out(name, params, xs, credits, span))


def test_with_a_span_of_one_it_is_immediate(x64):
    cell = CELLS["lstm"]()
    params, (xs, credits) = draw(cell), stream(cell, STEPS, 2)
    gradients, *_ = run(ft.pp_prop(cell, span=1), cell, params, xs, credits, lanes=2)
    assert_close(gradients, run(ft.immediate(cell), cell, params, xs, credits, lanes=2)[0])


def test_a_restart_forgets_traces_and_counts_anew(x64):
    cell = leaky()
    params, (xs, credits) = draw(cell), stream(cell, STEPS)
    restart = jnp.zeros(STEPS, bool).at[2].set(True)
    gradients, *_ = run(ft.pp_prop(cell, span=5), cell, params, xs, credits, restart=restart)
    whole, *_ = run(ft.pp_prop(cell, span=5), cell, params, xs[2:], credits[2:])
    assert_close(jax.tree.map(lambda leaf: leaf[2:], gradients), whole)


def test_memory_is_that_of_the_units():
    cell = ft.cells.leaky(hidden=50, inputs=7)
    state = jax.eval_shape(
        lambda key: ft.pp_prop(cell, span=5).init(key, cell.init(key)), jax.random.key(0)
    )
    sizes = [leaf.size for leaf in jax.tree.leaves(state.past.traces)]
    assert sum(sizes) == 50 + 7 + 1 + 50 + 1


@pytest.mark.parametrize(("value", "kind"), [(0, ValueError), (0.9, TypeError)])
def test_the_span_is_checked(value, kind):
    with pytest.raises(kind, match=rf"^span must be an int >= 1; got {value}; 1 is"):
        ft.pp_prop.__wrapped__(CELLS["lstm"](), span=value)


def test_a_parameter_of_several_units_is_refused():
    cell = CELLS["gru"]()
    with pytest.raises(ValueError, match=r"^pp_prop needs every parameter to act on one unit"):
        ft.pp_prop(cell, span=5).init(jax.random.key(0), draw(cell))
