"""The built-in cells against a numpy forward pass written one line at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from foretrace.cells import LSTMHidden, cell, gru, highway, lstm, rnn

FACTORIES = {"rnn": rnn, "highway": highway, "gru": gru, "lstm": lstm}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def numpy_rnn(p, h, x):
    return np.tanh(x @ p["input"] + h @ p["recurrent"] + p["bias"])


def numpy_highway(p, h, x):
    n = len(h)
    layers = [(x @ p["input"], p)] + [(0.0, layer) for layer in p.get("deeper", ())]
    for drive, layer in layers:
        z = drive + h @ layer["recurrent"] + layer["bias"]
        candidate, gate = 2 * sigmoid(z[:n]) - 1, sigmoid(z[n:])
        h = gate * h + (1 - gate) * candidate
    return h


def numpy_gru(p, h, x):
    def affine(name, h):
        return x @ p[name]["input"] + h @ p[name]["recurrent"] + p[name]["bias"]

    reset, update = sigmoid(affine("reset", h)), sigmoid(affine("update", h))
    return update * h + (1 - update) * np.tanh(affine("candidate", reset * h))


def numpy_lstm(p, hidden, x):
    c, h = hidden
    n = len(h)
    z = x @ p["input"] + h @ p["recurrent"] + p["bias"]
    i, f, g, o = z[:n], z[n : 2 * n], z[2 * n : 3 * n], z[3 * n :]
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return LSTMHidden(c, sigmoid(o) * np.tanh(c))


CASES = {
    "rnn": (rnn, {}, numpy_rnn),
    "highway": (highway, {}, numpy_highway),
    "highway of depth 3": (highway, {"depth": 3}, numpy_highway),
    "gru": (gru, {}, numpy_gru),
    "lstm": (lstm, {}, numpy_lstm),
}


@pytest.mark.parametrize(("factory", "extra", "reference"), CASES.values(), ids=CASES)
def test_three_steps_equal_the_numpy_forward(x64, factory, extra, reference):
    made = factory(hidden=5, inputs=3, dtype=jnp.float64, **extra)
    params = made.init(jax.random.key(0))
    # Larger weights than the initial ones, or a wrong sign would hide in the rounding.
    params = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(np.random.default_rng(1).normal(size=leaf.shape)), params
    )
    hidden = made.initial_hidden()
    expected = jax.tree.map(np.asarray, hidden)
    for x in np.random.default_rng(2).normal(size=(3, 3)):
        hidden = made.step(params, hidden, jnp.asarray(x))
        expected = reference(jax.tree.map(np.asarray, params), expected, x)
    for got, want in zip(jax.tree.leaves(hidden), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_everything_is_float32_and_keeps_its_shape(factory):
    made = factory(hidden=5, inputs=3)
    params, hidden = made.init(jax.random.key(0)), made.initial_hidden()
    after = jax.eval_shape(made.step, params, hidden, made.example_input())
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, hidden)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, hidden, after))} == {np.dtype("f4")}
    assert made.example_input().shape == (3,)


def test_highway_weights_start_at_the_papers_scale():
    params = highway(hidden=64, inputs=6).init(jax.random.key(0))
    assert abs(float(jnp.std(params["recurrent"])) - 0.01) < 0.0005
    assert set(params) == {"input", "recurrent", "bias"}


def test_recurrent_weights_start_orthogonal_in_every_gate():
    recurrent = lstm(hidden=6, inputs=3).init(jax.random.key(0))["recurrent"]
    for gate in jnp.split(recurrent, 4, axis=1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(6), atol=1e-5)


def test_the_forget_gate_starts_open():
    bias = lstm(hidden=2, inputs=3).init(jax.random.key(0))["bias"]
    assert bias.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
@pytest.mark.parametrize("argument", ["hidden", "inputs"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError)])
def test_a_size_must_be_a_positive_int(factory, argument, value, error):
    sizes = {"hidden": 4, "inputs": 3} | {argument: value}
    with pytest.raises(error, match=f"^{argument} must be an int >= 1; got {value}; "):
        factory(**sizes)


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_dtype_must_be_float(factory):
    with pytest.raises(TypeError, match=r"^dtype must be a float dtype; got .*int32"):
        factory(hidden=4, inputs=3, dtype=jnp.int32)


def plain_step(params, hidden, x):
    return jnp.tanh(params["w"] @ hidden + params["v"] @ x)


def plain_init(key):
    w, v = jax.random.split(key)
    return {"w": jax.random.normal(w, (4, 4)), "v": jax.random.normal(v, (4, 3))}


def test_a_plain_function_becomes_a_cell():
    made = cell(plain_step, init=plain_init, hidden=4, inputs=3)
    assert made.initial_hidden().tolist() == [0, 0, 0, 0]
    assert made.example_input().shape == (3,)


def test_hidden_may_be_a_pytree_of_initial_values_and_shapes():
    def step(params, hidden, x):
        return {"a": hidden["a"] * params, "b": hidden["b"] + x["u"]}

    hidden = {"a": jnp.full(2, 0.5), "b": jax.ShapeDtypeStruct((3,), jnp.float32)}
    made = cell(step, init=lambda key: jnp.ones(2), hidden=hidden, inputs={"u": jnp.ones(3)})
    assert made.initial_hidden()["a"].tolist() == [0.5, 0.5]
    assert made.initial_hidden()["b"].tolist() == [0, 0, 0]


def test_a_hidden_size_that_does_not_match_is_refused():
    """What the step raises for it passes: it may be a mistake in the step."""
    with pytest.raises(TypeError, match=r"Raised by the cell's step, .* hidden float32\[5\] and input"):
        cell(plain_step, init=plain_init, hidden=5, inputs=3)


def test_a_cell_that_changes_its_states_shape_is_refused():
    def grow(params, hidden, x):
        return jnp.concatenate([hidden, plain_step(params, hidden, x)])

    with pytest.raises(ValueError, match=r"^step must return .* float32\[4\]; got float32\[8\]"):
        cell(grow, init=plain_init, hidden=4, inputs=3)


def test_a_cell_that_changes_its_states_structure_is_refused():
    def pair(params, hidden, x):
        return hidden, hidden

    with pytest.raises(ValueError, match=r"^step must return a hidden state"):
        cell(pair, init=plain_init, hidden=4, inputs=3)


def test_integer_parameters_are_refused():
    def init(key):
        return plain_init(key) | {"shift": jnp.arange(4)}

    with pytest.raises(TypeError, match=r"^every parameter must be a float array; got int32 at"):
        cell(plain_step, init=init, hidden=4, inputs=3)


def test_numbers_that_are_no_arrays_are_refused():
    with pytest.raises(TypeError, match=r"^hidden must be an int or a pytree of arrays; got a flo"):
        cell(plain_step, init=plain_init, hidden=4.0, inputs=3)
