"""Dropout and other draws inside a step: from a key in the input, of either kind, or refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import foretrace as ft
from oracles import (
    assert_close,
    precision,
    quick_compilation,  # noqa: F401
    user_cell,
)

STEPS = 4
KEYS = {"typed": jax.random.key, "raw": jax.random.PRNGKey}


class Dropped(nnx.Module):
    """A cell with dropout, whose key comes with the input where `keyed`."""

    def __init__(self, *, rngs, keyed=True, deterministic=False):
        options = {"dtype": precision(), "param_dtype": precision(), "rngs": rngs}
        self.cell, self.keyed = nnx.GRUCell(2, 3, **options), keyed
        self.dropout = nnx.Dropout(0.5, deterministic=deterministic, rngs=rngs)

    def __call__(self, hidden, x):
        hidden, out = self.cell(hidden, x["x"])
        rngs = nnx.Rngs(dropout=x["key"]) if self.keyed else None
        return self.dropout(hidden, rngs=rngs), out


class DroppedEquinox(eqx.Module):
    cell: eqx.nn.GRUCell
    dropout: eqx.nn.Dropout
    own_key: jax.Array | None = None

    def __call__(self, x, hidden):
        key = x["key"] if self.own_key is None else self.own_key
        return self.dropout(self.cell(x["x"], hidden), key=key)


def equinox(**options):
    return DroppedEquinox(eqx.nn.GRUCell(2, 3, key=jax.random.key(0)), eqx.nn.Dropout(0.5), **options)


def dropped(p, h, x):
    keep = jax.random.bernoulli(x["key"], 0.7, h.shape)
    return jnp.where(keep, jnp.tanh(p["w"] @ h + p["v"] @ x["x"]), 0)


def example(kind):
    return {"x": jnp.zeros(2, precision()), "key": KEYS[kind](0)}


CELLS = {
    "plain": lambda kind: user_cell(dropped, {"w": (3, 3), "v": (3, 2)}, inputs=example(kind)),
    "flax": lambda kind: ft.from_flax(Dropped, hidden=3, inputs=example(kind)),
    "equinox": lambda kind: ft.from_equinox(equinox(), hidden=3, inputs=example(kind)),
}


@pytest.fixture
def reused_keys():
    """The checker of keys takes those that a differentiated scan goes through for used."""
    with jax.debug_key_reuse(False):
        yield


@pytest.mark.parametrize(
    ("name", "kind", "lanes"),
    [
        *(("plain", kind, lanes) for kind in KEYS for lanes in (None, 2)),
        ("flax", "typed", None),
        ("flax", "raw", 2),
        ("equinox", "typed", 2),
    ],
)
def test_dropout_with_a_key_in_the_input_is_exact(x64, reused_keys, name, kind, lanes):
    cell = CELLS[name](kind)
    params, shape = cell.init(jax.random.key(0)), (STEPS,) if lanes is None else (STEPS, lanes)
    keys = jax.vmap(KEYS[kind])(jnp.arange(STEPS * (lanes or 1)))
    xs = {
        "x": jax.random.normal(jax.random.key(1), (*shape, 2)),
        "key": keys.reshape(*shape, *keys.shape[1:]),
    }

    def last(params, xs):
        hidden = cell.initial_hidden()
        return (jax.lax.scan(lambda h, x: (cell.step(params, h, x), None), hidden, xs)[0] ** 2).sum()

    every = last if lanes is None else jax.vmap(last, in_axes=(None, 1))
    expected = jax.grad(lambda params: every(params, xs).sum())(params)
    learner = ft.rtrl(cell) if kind == "raw" else ft.ok(cell, rank=STEPS, block=2)
    step = ft.online(learner)

    def loss(params, state, x):
        hidden, state = step(params, state, x)
        return (hidden**2).sum(), state

    def each(state, x):
        gradient, state = jax.grad(loss, has_aux=True)(params, state, x)
        return state, gradient

    _, gradients = jax.lax.scan(each, learner.init(jax.random.key(2), params, lanes), xs)
    assert_close(jax.tree.map(lambda a: a[-1], gradients), expected)


def test_masks_are_drawn_anew_from_each_key():
    cell = CELLS["flax"]("typed")
    params, hidden = cell.init(jax.random.key(0)), jnp.ones(3)
    keys = jax.random.split(jax.random.key(1), 16)
    out = jax.vmap(lambda key: cell.step(params, hidden, {"x": jnp.ones(2), "key": key}))(keys)
    assert 0 < (out == 0).sum() < out.size
    assert len({tuple(row) for row in (out == 0).tolist()}) > 4


def constant_draw(p, h, x):
    return dropped(p, h, {"x": x, "key": jax.random.key(3)})


def folded_draw(p, h, x):
    return dropped(p, h, {"x": x, "key": jax.random.fold_in(jax.random.key(3), 1)})


def raw_draw(p, h, x):
    return dropped(p, h, {"x": x, "key": jax.random.PRNGKey(3)})


def chosen_draw(p, h, x):
    return jax.lax.cond(x[0] > 0, lambda: constant_draw(p, h, x), lambda: h)


SHAPES = {"w": (3, 3), "v": (3, 2)}
ALIKE = {
    step.__name__: lambda step=step: user_cell(step, SHAPES)
    for step in (constant_draw, folded_draw, raw_draw, chosen_draw)
} | {
    "flax": lambda: ft.from_flax(
        lambda rngs: Dropped(rngs=rngs, keyed=False), hidden=3, inputs=example("raw")
    ),
    "equinox": lambda: ft.from_equinox(equinox(own_key=jax.random.key(1)), hidden=3, inputs=example("raw")),
}


@pytest.mark.parametrize("name", ALIKE)
def test_a_draw_that_is_the_same_at_every_step_is_refused(name):
    with pytest.raises(ValueError, match=r"^cell.step must draw from a key that comes with the input; got"):
        ft.rtrl(ALIKE[name]())


def test_a_draw_that_the_input_takes_part_in_is_taken():
    def counted(p, h, x):
        return dropped(p, h, {"x": x["x"], "key": jax.random.fold_in(jax.random.key(3), x["step"])})

    inputs = {"x": jnp.zeros(2), "step": jnp.zeros((), int)}
    assert ft.structure_of(user_cell(counted, SHAPES, inputs=inputs)).state_size == 3


def test_dropout_that_is_switched_off_is_taken():
    make = lambda rngs: Dropped(rngs=rngs, keyed=False, deterministic=True)  # noqa: E731
    assert ft.structure_of(ft.from_flax(make, hidden=3, inputs=example("raw"))).state_size == 3


class Normalised(nnx.Module):
    def __init__(self, *, rngs):
        self.cell, self.norm = nnx.GRUCell(2, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, hidden, x):
        hidden, out = self.cell(hidden, x)
        return self.norm(hidden), out


def test_a_normalisation_by_the_batch_is_refused_and_by_fixed_averages_taken():
    module = Normalised(rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"^module must not normalise by its batch, .*module.eval\(\)"):
        ft.from_flax(module, hidden=3, inputs=2)
    module.eval()
    cell = ft.from_flax(module, hidden=3, inputs=2)
    assert ft.structure_of(cell).state_size == 3
    assert_close(
        cell.step(cell.init(jax.random.key(0)), jnp.ones(3), jnp.ones(2)),
        module(jnp.ones(3), jnp.ones(2))[0],
    )


def test_a_key_in_the_hidden_state_is_sent_to_the_input():
    for hidden in {"h": jnp.zeros(3), "key": jax.random.key(0)}, [jax.random.key(0)]:
        with pytest.raises(TypeError, match=r"^hidden\[.*got key<fry>; give a new key with every input"):
            ft.cell(lambda p, h, x: h, init=lambda key: {"w": jnp.ones(3)}, hidden=hidden, inputs=2)
