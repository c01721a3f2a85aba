"""Diagonal, element-wise and layered cells: their forward pass, their exact gradients, their noise."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace.cells import diagonal, elstm, gru, gtu, leaky, lstm, mingru, rnn, rtu, stack
from oracles import (
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
    stream,
)

STEPS = 7


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def complex_of(a):
    real, imaginary = np.split(a, 2, axis=-1)
    return real + 1j * imaginary


def pair_of(z):
    return np.concatenate([z.real, z.imag])


def numpy_diagonal(p, h, x):
    rotation = np.exp(-np.exp(p["decay"]) + 1j * np.exp(p["angle"]))
    return pair_of(rotation * complex_of(h) + np.exp(p["scale"]) * (x @ complex_of(p["input"])))


def numpy_rtu(p, h, x):
    rotation = np.exp(-np.exp(p["decay"]) + 1j * np.exp(p["angle"]))
    drive = np.sqrt(1 - np.abs(rotation) ** 2) * (x @ complex_of(p["input"]))
    return pair_of(rotation * complex_of(h) + drive)


def numpy_elstm(p, c, x):
    n = len(c)
    f = sigmoid(x @ p["input"][:, :n] + p["recurrent"][:n] * c + p["bias"][:n])
    z = np.tanh(x @ p["input"][:, n:] + p["recurrent"][n:] * c + p["bias"][n:])
    return f * c + (1 - f) * z


def numpy_mingru(p, h, x):
    z = x @ p["input"] + p["bias"]
    g = sigmoid(z[: len(h)])
    return (1 - g) * h + g * z[len(h) :]


def numpy_gtu(p, h, x):
    g = sigmoid(x @ p["gate"]["input"] + p["gate"]["bias"])
    rotation = np.exp(g * (-np.exp(p["decay"]) + 1j * np.exp(p["angle"])))
    return pair_of(
        rotation * complex_of(h) + np.sqrt(1 - np.abs(rotation) ** 2) * (x @ complex_of(p["input"]))
    )


def numpy_leaky(p, h, x):
    tau = np.array([1.0, 2.0, 8.0])
    return h + (np.tanh(x @ p["input"] + h @ p["recurrent"] + p["bias"]) - h) / tau


FACTORIES = {
    "diagonal": diagonal,
    "rtu": rtu,
    "gtu": gtu,
    "elstm": elstm,
    "mingru": mingru,
    "leaky": leaky,
}
CELLS = {
    "diagonal": (diagonal, {}, numpy_diagonal),
    "rtu": (rtu, {}, numpy_rtu),
    "rtu with tanh": (rtu, {"activation": jnp.tanh}, lambda p, h, x: np.tanh(numpy_rtu(p, h, x))),
    "gtu": (gtu, {}, numpy_gtu),
    "elstm": (elstm, {}, numpy_elstm),
    "mingru": (mingru, {}, numpy_mingru),
    "leaky": (leaky, {"time_constant": (1.0, 2.0, 8.0)}, numpy_leaky),
}
every_cell = pytest.mark.parametrize("name", CELLS)


@cache
def make_in(name, dtype, hidden, inputs):
    factory, extra, _ = CELLS[name]
    return factory(hidden=hidden, inputs=inputs, dtype=dtype, **extra)


def make(name, hidden=3, inputs=2):
    return make_in(name, precision(), hidden, inputs)


@every_cell
def test_three_steps_equal_the_numpy_forward(x64, name):
    cell, reference = make(name), CELLS[name][2]
    params = draw(cell)
    hidden = expected = cell.initial_hidden()
    for x in np.random.default_rng(2).normal(size=(3, 2)):
        hidden = cell.step(params, hidden, jnp.asarray(x))
        expected = reference(jax.tree.map(np.asarray, params), np.asarray(expected), x)
    np.testing.assert_allclose(hidden, expected, rtol=1e-12)


@pytest.mark.parametrize("name", [name for name in CELLS if name != "rtu"])
def test_rtrl_is_the_gradient_of_the_unrolled_loss(x64, name):
    cell = make(name)
    params, (xs, credits) = draw(cell), stream(cell, STEPS)
    gradients, *_ = run(ft.rtrl(cell), cell, params, xs, credits)
    assert_close(gradients, exact(cell, params, xs, credits))


@pytest.mark.parametrize("name", ["diagonal", "elstm"])
def test_ok_of_full_rank_is_exact_with_the_small_leaves_beside_the_group(x64, name):
    cell = make(name)
    params, (xs, credits) = draw(cell), stream(cell, STEPS, 2)
    gradients, *_ = run(ft.ok(cell, rank=STEPS - 1, block=3), cell, params, xs, credits, lanes=2)
    assert_close(gradients, exact_lanes(cell, params, xs, credits))


@pytest.mark.parametrize(("name", "learner"), [("rtu with tanh", "kf_rtrl"), ("elstm", "uoro")])
def test_mean_over_all_signs_is_rtrl(x64, name, learner):
    cell = make(name, hidden=1 if name != "elstm" else 3, inputs=2)
    assert_unbiased(getattr(ft, learner)(cell), cell, draw(cell, scale=0.8), stream(cell, 4)[0])


GROUPS = {
    "diagonal": ({"input"}, {"decay", "angle", "scale"}),
    "rtu": ({"input"}, {"decay", "angle"}),
    "rtu with tanh": ({"input"}, {"decay", "angle"}),
    "gtu": ({"input", "gate.input", "gate.bias"}, {"decay", "angle"}),
    "elstm": ({"input", "bias"}, {"recurrent"}),
    "mingru": ({"input", "bias"}, set()),
    "leaky": ({"input", "recurrent", "bias"}, set()),
}


@every_cell
def test_input_weights_are_one_group_and_the_rest_is_tracked_exactly(x64, name):
    cell = make(name)
    structure = ft.structure_of(cell, draw(cell))
    members = {member.path for group in structure.groups for member in group.members}
    assert (members, {d.path for d in structure.dense}) == GROUPS[name]
    assert len(structure.groups) == (2 if name == "gtu" else 1)


@pytest.mark.parametrize("name", ["diagonal", "rtu", "rtu with tanh", "gtu", "elstm", "mingru"])
def test_no_unit_sees_another(x64, name):
    cell = make(name)
    hidden, x = noise(cell.initial_hidden(), 2), jnp.ones(2)
    jacobian = np.asarray(jax.jacobian(cell.step, argnums=1)(draw(cell), hidden, x))
    unit = np.arange(hidden.size) % 3
    assert np.all((jacobian != 0) == (unit[:, None] == unit[None, :]))


@pytest.mark.parametrize("name", ["diagonal", "rtu"])
def test_spectrum_is_drawn_from_the_ring_and_the_input_is_normalised(name):
    cell = FACTORIES[name](hidden=4096, inputs=1, radius=(0.6, 0.9), phase=1.0)
    params = cell.init(jax.random.key(0))
    r, theta = np.exp(-np.exp(params["decay"])), np.exp(params["angle"])
    assert (r.min(), r.max()) == pytest.approx((0.6, 0.9), abs=1e-3)
    assert np.mean(r**2) == pytest.approx((0.36 + 0.81) / 2, abs=0.01)
    assert (theta.min(), theta.max()) == pytest.approx((0, 1), abs=1e-3)
    # White noise in, a state of the variance of `x @ input` out: that is what the normaliser is for.
    gain = np.exp(params["scale"]) if name == "diagonal" else np.sqrt(1 - r**2)
    np.testing.assert_allclose(gain**2 / (1 - r**2), 1, rtol=1e-4)


@pytest.mark.parametrize("name", ["diagonal", "rtu"])
def test_the_whole_disc_gives_finite_parameters(name):
    params = FACTORIES[name](hidden=100_000, inputs=1).init(jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("name", ["diagonal", "rtu"])
@pytest.mark.parametrize("radius", [(0.9, 0.9), (-0.1, 1.0), (0.5, 1.1)])
def test_a_radius_outside_the_disc_is_refused(name, radius):
    with pytest.raises(ValueError, match=r"^radius must be \(least, largest\) with 0 <= least < larg"):
        FACTORIES[name](hidden=3, inputs=2, radius=radius)


@pytest.mark.parametrize("name", ["diagonal", "rtu"])
def test_a_phase_of_zero_is_refused(name):
    with pytest.raises(ValueError, match=r"^phase must be > 0; got 0.0; 6.28"):
        FACTORIES[name](hidden=3, inputs=2, phase=0.0)


def test_elstm_starts_at_the_authors_scale():
    params = elstm(hidden=64, inputs=64).init(jax.random.key(0))
    assert float(jnp.std(params["input"])) == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_everything_is_float32_and_keeps_its_shape(factory):
    cell = factory(hidden=5, inputs=3)
    params, hidden = cell.init(jax.random.key(0)), cell.initial_hidden()
    after = jax.eval_shape(cell.step, params, hidden, cell.example_input())
    assert after.shape == hidden.shape
    assert {leaf.dtype for leaf in jax.tree.leaves((params, hidden, after))} == {np.dtype("f4")}


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
@pytest.mark.parametrize("argument", ["hidden", "inputs"])
def test_a_size_must_be_a_positive_int(factory, argument):
    with pytest.raises(ValueError, match=f"^{argument} must be an int >= 1; got 0; "):
        factory(**({"hidden": 4, "inputs": 3} | {argument: 0}))


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_dtype_must_be_float(factory):
    with pytest.raises(TypeError, match=r"^dtype must be a float dtype; got .*int32"):
        factory(hidden=4, inputs=3, dtype=jnp.int32)


def test_leaky_units_of_time_constant_one_are_an_rnn():
    cell, other = leaky(hidden=4, inputs=3, time_constant=1.0), rnn(hidden=4, inputs=3)
    params, hidden, x = draw(cell), jnp.full(4, 0.3), jnp.ones(3)
    assert_close(cell.step(params, hidden, x), other.step(params, hidden, x), 1e-6)
    assert_close(cell.init(jax.random.key(0)), other.init(jax.random.key(0)), 0)


@pytest.mark.parametrize("given", [0.5, (2.0, 2.0), (1.0, 2.0, 0.9), float("nan")])
def test_time_constants_below_one_step_or_not_one_for_each_unit_are_refused(given):
    with pytest.raises(ValueError, match=r"^time_constant must be one number >= 1 or 3 of them; got"):
        leaky(hidden=3, inputs=2, time_constant=given)


# Layers.


@cache
def layers(dtype):
    return lstm(hidden=2, inputs=2, dtype=dtype), gru(hidden=2, inputs=2, dtype=dtype)


def test_a_stack_steps_each_layer_on_what_the_one_below_shows(x64):
    low, high = layers(precision())
    cell = stack([low, high])
    params, hidden = draw(cell), cell.initial_hidden()
    below, above = low.initial_hidden(), high.initial_hidden()
    for x in np.random.default_rng(2).normal(size=(3, 2)):
        hidden = cell.step(params, hidden, jnp.asarray(x))
        below = low.step(params[0], below, jnp.asarray(x))
        above = high.step(params[1], above, below.h)
    assert_close(hidden.layers, (below, above), 0)
    assert cell.output(hidden) is hidden.layers[1]


def test_the_output_of_a_stack_of_stacks_is_that_of_the_topmost_layer():
    cell = stack([stack([rnn(hidden=3, inputs=2), lstm(hidden=4, inputs=3)]), lstm(hidden=5, inputs=4)])
    assert cell.output(cell.initial_hidden()).shape == (5,)


def test_layers_are_drawn_from_different_keys():
    low, high = stack([rnn(hidden=3, inputs=3)] * 2).init(jax.random.key(0))
    assert not np.allclose(low["recurrent"], high["recurrent"])


def test_influence_across_layers_is_exact(x64):
    cell = stack(layers(precision()))
    params, (xs, credits) = draw(cell), stream(cell, STEPS)
    gradients, *_ = run(ft.rtrl(cell, block=3), cell, params, xs, credits)
    assert_close(gradients, exact(cell, params, xs, credits))


def test_the_groups_of_a_stack_are_those_of_its_layers(x64):
    cells = (*layers(precision()), make("elstm"))
    structure = ft.structure_of(stack(cells), draw(stack(cells)))
    sizes = sorted((group.factor_size, group.preact_size) for group in structure.groups)
    apart = [ft.structure_of(cell, draw(cell)) for cell in cells]
    assert sizes == sorted((g.factor_size, g.preact_size) for found in apart for g in found.groups)
    assert [leaf.path for leaf in structure.dense] == ["2.recurrent"]


def test_online_steps_above_each_other_pass_credit_through_the_present_step_alone(x64):
    low, high = make("rtu", hidden=1), make("elstm")
    cells = low, high
    params = tuple(draw(cell, seed) for seed, cell in enumerate(cells))
    xs, credits = stream(low, 4)[0], stream(high, 4)[1]
    learners = [ft.rtrl(cell) for cell in cells]
    steps = [ft.online(learner) for learner in learners]

    @jax.jit
    def layerwise(params, states, x, credit):
        def loss(params):
            below, one = steps[0](params[0], states[0], x)
            above, two = steps[1](params[1], states[1], below)
            return dot(credit, above), (one, two)

        return jax.grad(loss, has_aux=True)(params)

    def defined(params, xs, credit):
        """Credit passes from the last step of the upper layer to the lower one, and no other way."""
        below, above = low.initial_hidden(), high.initial_hidden()
        for i, x in enumerate(xs):
            below = low.step(params[0], below, x)
            seen = below if i == len(xs) - 1 else jax.lax.stop_gradient(below)
            above = high.step(params[1], above, seen)
        return dot(credit, above)

    states = tuple(
        learner.init(jax.random.key(0), own) for learner, own in zip(learners, params, strict=True)
    )
    for t in range(4):
        gradients, states = layerwise(params, states, xs[t], credits[t])
        assert_close(gradients, jax.grad(defined)(params, xs[: t + 1], credits[t]))

    whole = stack(cells)
    shown = jax.tree.map(lambda a: jnp.zeros((4, *a.shape)), whole.initial_hidden())
    everything = exact(whole, params, xs, shown._replace(layers=(shown.layers[0], credits)))
    lower, upper = jax.tree.map(lambda a: a[-1], everything)
    assert_close(gradients[1], upper)
    assert max(np.abs(gradients[0][name] - lower[name]).max() for name in lower) > 1e-3  # the bias


def test_layers_that_do_not_fit_are_refused():
    low, high = rnn(hidden=8, inputs=3), rnn(hidden=4, inputs=6)
    message = (
        r"^cells\[1\] must take the output of cells\[0\], float32\[8\]; got a cell for float32\[6\]; build"
    )
    with pytest.raises(ValueError, match=message):
        stack([low, high])
    with pytest.raises(ValueError, match=r"^cells must have at least one cell; got none"):
        stack([])


def test_a_layer_reads_the_output_of_the_one_below():
    pair = ft.cell(
        lambda p, h, x: (jnp.tanh(p * h[1] + x), h[0]),
        init=lambda key: jnp.ones(3),
        hidden=(jnp.zeros(3), jnp.zeros(3)),
        inputs=3,
    )
    with pytest.raises(
        ValueError, match=r"cells\[0\], \[0\] float32\[3\], \[1\] float32.* give the other an output=\.$"
    ):
        stack([pair, rnn(hidden=4, inputs=3)])
    cell = stack([pair._replace(output=lambda hidden: hidden[0]), rnn(hidden=4, inputs=3)])
    assert cell.output(cell.step(draw(cell), cell.initial_hidden(), jnp.ones(3))).shape == (4,)


class Walker(NamedTuple):
    """A state whose field `h` is not its output."""

    h: jax.Array
    speed: jax.Array


def walker(**options):
    def step(params, hidden, x):
        speed = jnp.tanh(params @ hidden.speed + x)
        return Walker(hidden.h + speed, speed)

    state = Walker(*jnp.zeros((2, 3)))
    return ft.cell(step, init=lambda key: jnp.eye(3), hidden=state, inputs=3, **options)


def test_a_field_named_h_is_not_cut_out_of_a_users_state():
    cell = walker()
    hidden = cell.step(draw(cell), cell.initial_hidden(), jnp.ones(3))
    assert cell.output(hidden) is hidden
    with pytest.raises(
        ValueError, match=r"output of cells\[0\], \.h float32\[3\], \.speed float32\[3\]; got"
    ):
        stack([cell, rnn(hidden=4, inputs=3)])
    whole = walker(output=jnp.concatenate)
    assert whole.output(hidden).shape == (6,)
    assert stack([whole, rnn(hidden=4, inputs=6)]).initial_hidden().layers[0].h.shape == (3,)


def test_an_output_that_does_not_fit_the_state_is_refused():
    with pytest.raises(AttributeError, match=r"Raised by output, for a hidden state \.h float32\[3\]"):
        walker(output=lambda hidden: hidden.position)
