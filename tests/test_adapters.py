"""Cells of Equinox and Flax: their own forward pass, gradients of the unrolled loss, structure."""

import functools
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import foretrace as ft
from oracles import (
    assert_close,
    assert_unbiased,
    draw,
    exact,
    exact_lanes,
    noise,
    precision,
    quick_compilation,  # noqa: F401
    run,
    stream,
)

STEPS = 5


class OwnEquinox(eqx.Module):
    """A user's own: a leaky cell with a constant mask, whose state is a pair."""

    recurrent: eqx.nn.Linear
    drive: eqx.nn.Linear
    mask: jax.Array
    rate: float = 0.3

    def __init__(self, *, key):
        a, b = jax.random.split(key)
        self.recurrent = eqx.nn.Linear(3, 3, key=a)
        self.drive = eqx.nn.Linear(2, 3, use_bias=False, key=b)
        self.mask = jnp.array([True, False, True])

    def __call__(self, x, hidden):
        fast, slow = hidden
        fast = jnp.tanh(self.recurrent(jnp.where(self.mask, slow, fast)) + self.drive(x))
        return fast, slow + self.rate * (fast - slow)


class OwnFlax(nnx.Module):
    """A user's own that is no RNNCellBase, with a constant, and a variable that its steps write."""

    def __init__(self, *, rngs):
        options = {"dtype": precision(), "param_dtype": precision(), "rngs": rngs}
        self.recurrent, self.drive = (
            nnx.Linear(3, 3, **options),
            nnx.Linear(2, 3, use_bias=False, **options),
        )
        self.rate = nnx.Variable(jnp.full(3, 0.3, precision()))
        self.calls = nnx.Variable(jnp.zeros((), precision()))

    def __call__(self, hidden, x):
        self.calls[...] += 1
        rate = self.rate[...] / self.calls[...]
        new = hidden + rate * (jnp.tanh(self.recurrent(hidden) + self.drive(x)) - hidden)
        return new, new.sum()


class Concatenated(nnx.Module):
    """An LSTM-like cell that puts the weights of its gates together at every step."""

    def __init__(self, *, rngs):
        kernel = nnx.initializers.lecun_normal()
        self.forget = nnx.Param(kernel(rngs.params(), (10, 8)))
        self.candidate = nnx.Param(kernel(rngs.params(), (10, 8)))

    def __call__(self, hidden, x):
        weights = jnp.concatenate([self.forget[...], self.candidate[...]], axis=1)
        f, z = jnp.split(jnp.concatenate([hidden, x]) @ weights, 2)
        new = jax.nn.sigmoid(f) * hidden + (1 - jax.nn.sigmoid(f)) * jnp.tanh(z)
        return new, new


def equinox(factory, **options):
    """The module, the cell, and the module's own step as `(params, hidden, x) -> hidden`."""

    def make():
        module = factory(key=jax.random.key(0))
        static = eqx.filter(module, eqx.is_inexact_array, inverse=True)
        own = lambda p, h, x: eqx.combine(p, static)(x, h)  # noqa: E731
        return module, ft.from_equinox(module, **options), own

    return make


def flax(factory, dtyped=True, **options):
    def make():
        dtypes = {"dtype": precision(), "param_dtype": precision()} if dtyped else {}
        module = factory(**dtypes, rngs=nnx.Rngs(jax.random.key(0)))

        def own(params, hidden, x):
            copy = nnx.clone(module)
            nnx.update(copy, params)
            return copy(hidden, x)[0]

        return module, ft.from_flax(module, **options), own

    return make


def of(factory):
    return functools.partial(factory, 2, 3)


def pair():
    return jnp.zeros(3, precision()), jnp.zeros(3, precision())


CASES = {
    "eqx.nn.GRUCell": equinox(of(eqx.nn.GRUCell)),
    "eqx.nn.LSTMCell": equinox(of(eqx.nn.LSTMCell)),
    "own equinox": lambda: equinox(OwnEquinox, hidden=pair(), inputs=2)(),
    "nnx.GRUCell": flax(of(nnx.GRUCell)),
    "nnx.LSTMCell": flax(of(nnx.LSTMCell)),
    "nnx.OptimizedLSTMCell": flax(of(nnx.OptimizedLSTMCell)),
    "nnx.SimpleCell": flax(of(nnx.SimpleCell)),
    "own flax": flax(OwnFlax, dtyped=False, hidden=3, inputs=2),
}
GROUPS = {
    "eqx.nn.GRUCell": ({"weight_ih", "bias"}, {"weight_hh"}, {"bias_n"}),
    "eqx.nn.LSTMCell": ({"weight_ih", "weight_hh", "bias"},),
    "own equinox": ({"recurrent.weight", "recurrent.bias", "drive.weight"},),
    "nnx.GRUCell": ({"dense_i.kernel", "dense_i.bias"}, {"dense_h.kernel"}),
    "nnx.LSTMCell": tuple(
        {f"i{g}.kernel", f"h{g[0]}.kernel", f"h{g[0]}.bias"} for g in ("i", "f_", "g", "o")
    ),
    "nnx.OptimizedLSTMCell": ({"dense_i.kernel", "dense_h.kernel", "dense_h.bias"},),
    "nnx.SimpleCell": ({"dense_i.kernel", "dense_i.bias", "dense_h.kernel"},),
    "own flax": ({"recurrent.kernel", "recurrent.bias", "drive.kernel"},),
}
every_case = pytest.mark.parametrize("name", CASES)


@functools.cache
def made(name, dtype):
    """A case's module, cell and own step, made once per precision."""
    return CASES[name]()


@every_case
def test_step_is_the_librarys_own(x64, name):
    _, cell, own = made(name, precision())
    params, hidden = draw(cell), noise(cell.initial_hidden(), 2)
    expected = hidden
    for x in np.random.default_rng(3).normal(size=(3, 2)):
        hidden, expected = cell.step(params, hidden, jnp.asarray(x)), own(params, expected, jnp.asarray(x))
    assert_close(hidden, expected, 1e-14)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, hidden))} == {np.dtype("f8")}


@every_case
def test_rtrl_is_the_gradient_of_the_librarys_unrolled_loss(x64, name):
    _, cell, own = made(name, precision())
    params, (xs, credits) = draw(cell), stream(cell, STEPS)
    expected = exact(cell._replace(step=own), params, xs, credits)
    gradients, *_ = run(ft.rtrl(cell), cell, params, xs, credits)
    assert_close(gradients, expected)


@every_case
def test_every_weight_is_in_a_group(x64, name):
    _, cell, _ = made(name, precision())
    structure = ft.structure_of(cell, draw(cell))
    groups = [{member.path.removesuffix(".value") for member in g.members} for g in structure.groups]
    assert sorted(map(sorted, groups)) == sorted(map(sorted, GROUPS[name]))
    assert structure.dense == structure.unused == ()


def test_ok_of_full_rank_is_exact_on_two_lanes(x64):
    _, cell, _ = made("nnx.GRUCell", precision())
    params, (xs, credits) = draw(cell), stream(cell, STEPS, 2)
    gradients, *_ = run(ft.ok(cell, rank=STEPS - 1, block=2), cell, params, xs, credits, lanes=2)
    assert_close(gradients, exact_lanes(cell, params, xs, credits))


def test_mean_of_kf_rtrl_over_all_signs_is_rtrl(x64):
    _, cell, _ = made("own equinox", precision())
    assert_unbiased(ft.kf_rtrl(cell), cell, draw(cell), stream(cell, 4)[0])


# What a cell starts from.


@pytest.mark.parametrize("name", ["eqx.nn.LSTMCell", "nnx.SimpleCell"])
def test_a_module_starts_from_its_own_arrays_whatever_the_key(name):
    module, cell, _ = CASES[name]()
    own = nnx.state(module, nnx.Param) if name.startswith("nnx") else module
    first, second = (cell.init(jax.random.key(seed)) for seed in (1, 2))
    assert_close(first, own, 0)
    # Nothing is shared: a loop may give away the memory of what `init` returned.
    jax.tree.map(lambda a: a.delete(), first)
    assert_close(second, own, 0)


@pytest.mark.parametrize("name", ["equinox", "flax"])
def test_a_function_makes_a_new_module_for_each_key(name):
    if name == "equinox":
        cell = ft.from_equinox(of(eqx.nn.GRUCell))
        expected = eqx.nn.GRUCell(2, 3, key=jax.random.key(1))
    else:
        cell = ft.from_flax(lambda rngs: nnx.GRUCell(2, 3, rngs=rngs))
        expected = nnx.state(nnx.GRUCell(2, 3, rngs=nnx.Rngs(jax.random.key(1))), nnx.Param)
    assert_close(cell.init(jax.random.key(1)), expected, 0)
    other = jax.tree.leaves(cell.init(jax.random.key(2)))[0]
    assert np.abs(other - jax.tree.leaves(expected)[0]).max() > 0.1


def test_a_trained_state_goes_back_into_the_flax_module():
    module, cell, _ = CASES["nnx.GRUCell"]()
    params, x = draw(cell), jnp.ones(2)
    nnx.update(module, params)
    assert_close(module(cell.initial_hidden(), x)[0], cell.step(params, cell.initial_hidden(), x), 0)


def test_what_a_flax_module_writes_down_is_forgotten_after_the_step():
    module, cell, _ = made("own flax", precision())
    params, hidden, x = draw(cell), jnp.ones(3), jnp.ones(2)
    assert_close(cell.step(params, hidden, x), cell.step(params, hidden, x), 0)
    assert module.calls[...] == 0


def test_optax_trains_an_adapted_cell_online():
    _, cell, _ = CASES["eqx.nn.GRUCell"]()
    step, optimiser = ft.online(learner := ft.ok(cell, rank=2)), optax.adam(0.03)
    params = {"cell": cell.init(jax.random.key(0)), "readout": jnp.zeros(3)}
    state, x = learner.init(jax.random.key(1), params["cell"]), jnp.ones(2)

    def loss(params, state):
        hidden, state = step(params["cell"], state, x)
        return (hidden @ params["readout"] - 0.7) ** 2, state

    @jax.jit
    def update(carry, _):
        params, state, moments = carry
        (error, state), gradients = jax.value_and_grad(loss, has_aux=True)(params, state)
        updates, moments = optimiser.update(gradients, moments)
        return (optax.apply_updates(params, updates), state, moments), error

    with jax.numpy_dtype_promotion("standard"):  # optax relies on it
        _, errors = jax.lax.scan(update, (params, state, optimiser.init(params)), length=200)
    assert errors[0] > 0.4
    assert errors[-1] < 1e-3


# Refusals.


def test_weights_that_are_put_together_first_are_refused_with_the_reason():
    cell = ft.from_flax(Concatenated, hidden=8, inputs=2)
    message = (
        r"^ok needs every weight of the cell to factorise; got 'candidate.*'concatenate'.*rtrl\(cell\)"
    )
    with pytest.raises(ValueError, match=message):
        ft.ok(cell, rank=2)


def test_what_is_neither_a_module_nor_makes_one_is_refused():
    with pytest.raises(
        TypeError, match=r"^module must be a equinox.Module or what makes one, given key=; got"
    ):
        ft.from_equinox(3)
    with pytest.raises(
        TypeError, match=r"^module must be a flax.nnx.Module .* given rngs=; got dict; a plain"
    ):
        ft.from_flax(lambda rngs: {})


def test_a_linen_module_is_refused_with_a_remedy_that_is_exact(x64):
    for module in linen.GRUCell(3), linen.GRUCell, of(linen.GRUCell), lambda rngs: linen.GRUCell(3):
        with pytest.raises(
            TypeError, match=r"^module must be a flax.nnx.Module; got one of flax.linen; use"
        ):
            ft.from_flax(module)
    module, h, x = linen.GRUCell(3, param_dtype=precision()), jnp.zeros(3), jnp.zeros(2)
    own = lambda p, h, x: module.apply(p, h, x)[0]  # noqa: E731
    cell = ft.cell(own, init=lambda key: module.init(key, h, x), hidden=h, inputs=x)
    params, (xs, credits) = draw(cell), stream(cell, STEPS)
    gradients, *_ = run(ft.rtrl(cell), cell, params, xs, credits)
    assert_close(gradients, exact(cell, params, xs, credits))


def test_sizes_that_a_module_does_not_tell_must_be_given():
    with pytest.raises(ValueError, match=r"^hidden must be given .* got None; give a size or an example"):
        ft.from_equinox(OwnEquinox, inputs=2)
    with pytest.raises(ValueError, match=r"^inputs must be given"):
        ft.from_flax(OwnFlax, hidden=3)


def test_sizes_that_do_not_fit_the_module_are_refused():
    with pytest.raises(TypeError, match=r"Raised by the cell's step, for params .* and input float32\[5\]"):
        ft.from_equinox(of(eqx.nn.GRUCell), inputs=5)
    with pytest.raises(ValueError, match=r"^inputs must be an int >= 1; got 0"):
        ft.from_flax(of(nnx.GRUCell), inputs=0)


def test_complex_arrays_are_refused():
    class Turning(eqx.Module):
        angle: jax.Array

        def __call__(self, x, hidden):
            return (self.angle * hidden).real + x

    with pytest.raises(
        TypeError, match=r"^every parameter must be a float array; got complex64 at .*angle"
    ):
        ft.from_equinox(Turning(jnp.ones(2, complex)), hidden=2, inputs=2)


@pytest.mark.parametrize(
    ("adapter", "package", "extra"),
    [(ft.from_equinox, "equinox", "equinox"), (ft.from_flax, "flax.nnx", "flax")],
)
def test_a_missing_package_is_said_in_one_sentence(monkeypatch, adapter, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"^{adapter.__name__} needs {extra}, which .*; pip install 'foretrace\[{extra}\]'\.$"
    with pytest.raises(ImportError, match=message):
        adapter(None)


def test_importing_foretrace_imports_neither_library():
    code = "import foretrace, sys; assert not {'equinox', 'flax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
