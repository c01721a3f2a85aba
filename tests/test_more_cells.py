"""Diagonal, element-wise and layered cells: their forward pass, their exact gradients, their noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace._structure import find_structure
from foretrace.cells import diagonal, elstm, rtu
from oracles import (
    assert_close,
    assert_unbiased,
    draw,
    exact_lanes,
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


FACTORIES = {"diagonal": diagonal, "rtu": rtu, "elstm": elstm}
CELLS = {
    "diagonal": (diagonal, {}, numpy_diagonal),
    "rtu": (rtu, {}, numpy_rtu),
    "rtu with tanh": (rtu, {"activation": jnp.tanh}, lambda p, h, x: np.tanh(numpy_rtu(p, h, x))),
    "elstm": (elstm, {}, numpy_elstm),
}
every_cell = pytest.mark.parametrize("name", CELLS)


def make(name, hidden=3, inputs=2):
    factory, extra, _ = CELLS[name]
    return factory(hidden=hidden, inputs=inputs, dtype=precision(), **extra)


@every_cell
def test_three_steps_equal_the_numpy_forward(x64, name):
    cell, reference = make(name), CELLS[name][2]
    params = draw(cell)
    hidden = expected = cell.initial_hidden()
    for x in np.random.default_rng(2).normal(size=(3, 2)):
        hidden = cell.step(params, hidden, jnp.asarray(x))
        expected = reference(jax.tree.map(np.asarray, params), np.asarray(expected), x)
    np.testing.assert_allclose(hidden, expected, rtol=1e-12)


@every_cell
@pytest.mark.parametrize("block", [1, 3])
def test_rtrl_is_the_gradient_of_the_unrolled_loss(x64, name, block):
    cell = make(name)
    params, (xs, credits) = draw(cell), stream(cell, STEPS, 2)
    gradients, *_ = run(ft.rtrl(cell, block=block), cell, params, xs, credits, lanes=2)
    assert_close(gradients, exact_lanes(cell, params, xs, credits))


@every_cell
def test_ok_of_full_rank_is_exact_with_the_small_leaves_beside_the_group(x64, name):
    cell = make(name)
    params, (xs, credits) = draw(cell), stream(cell, STEPS, 2)
    gradients, *_ = run(ft.ok(cell, rank=STEPS - 1, block=3), cell, params, xs, credits, lanes=2)
    assert_close(gradients, exact_lanes(cell, params, xs, credits))


@pytest.mark.parametrize(
    ("name", "learner"), [("diagonal", "kf_rtrl"), ("rtu with tanh", "ok"), ("elstm", "uoro")]
)
def test_mean_over_all_signs_is_rtrl(x64, name, learner):
    learners = {"kf_rtrl": ft.kf_rtrl, "ok": lambda cell: ft.ok(cell, rank=1), "uoro": ft.uoro}
    cell = make(name, hidden=1 if name != "elstm" else 3, inputs=2)
    assert_unbiased(learners[learner](cell), cell, draw(cell, scale=0.8), stream(cell, 4)[0])


GROUPS = {
    "diagonal": ({"input"}, {"decay", "angle", "scale"}),
    "rtu": ({"input"}, {"decay", "angle"}),
    "rtu with tanh": ({"input"}, {"decay", "angle"}),
    "elstm": ({"input", "bias"}, {"recurrent"}),
}


@every_cell
def test_input_weights_are_one_group_and_the_rest_is_tracked_exactly(name):
    cell = make(name)
    structure = find_structure(cell, draw(cell))
    (group,) = structure.groups
    assert ({member.path for member in group.members}, {d.path for d in structure.dense}) == GROUPS[name]


@every_cell
def test_no_unit_sees_another(x64, name):
    cell = make(name)
    hidden, x = draw(cell)["input"].ravel()[: cell.initial_hidden().size], jnp.ones(2)
    size = hidden.size
    hidden = jnp.resize(hidden, size)
    jacobian = np.asarray(jax.jacobian(cell.step, argnums=1)(draw(cell), hidden, x))
    unit = np.arange(size) % 3
    assert np.all(jacobian[unit[:, None] != unit[None, :]] == 0)
    assert np.all(jacobian[unit[:, None] == unit[None, :]] != 0)


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
