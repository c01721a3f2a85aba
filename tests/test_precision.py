"""Half and mixed precision: gradients are those of the same cell in float32, to the cell's own rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

import foretrace as ft

STEPS = 5
LEARNERS = {
    "rtrl": ft.rtrl,
    "rtrl:block": lambda cell: ft.rtrl(cell, block=2),
    "ok": lambda cell: ft.ok(cell, rank=STEPS),
    "ok:block": lambda cell: ft.ok(cell, rank=STEPS, block=2),
    "sketch": lambda cell: ft.sketch(cell, rank=8),
    "snap": lambda cell: ft.snap(cell, order=STEPS),
}


@pytest.fixture(autouse=True)
def unoptimised():
    """Rounding to eight bits hides what the compiler's optimisations round."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def wide(tree):
    return jax.tree.map(lambda a: a.astype(jnp.float32), tree)


def as_vector(tree):
    return np.asarray(ravel_pytree(wide(tree))[0])


def assert_gradient(learner, cell, reference, rounding):
    """The gradient of the sum of the last state is that of `reference`, the cell in float32."""
    params = cell.init(jax.random.key(0))
    example = cell.example_input()
    xs = jax.random.normal(jax.random.key(1), (STEPS, *example.shape)).astype(example.dtype)

    def unrolled(params):
        start = wide(cell.initial_hidden())
        hidden, _ = jax.lax.scan(lambda h, x: (reference.step(params, h, x), None), start, wide(xs))
        return sum(leaf.sum() for leaf in jax.tree.leaves(hidden))

    @jax.jit
    def learned(params):
        state = learner.init(jax.random.key(2), params)
        state, _ = jax.lax.scan(lambda state, x: (learner.step(params, state, x)[0], None), state, xs)
        return learner.grad(params, state, jax.tree.map(jnp.ones_like, state.hidden))

    gradient = learned(params)
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(params)]
    assert [leaf.dtype for leaf in jax.tree.leaves(gradient)] == dtypes
    got, expected = as_vector(gradient), as_vector(jax.jit(jax.grad(unrolled))(wide(params)))
    assert np.linalg.norm(got - expected) <= 4 * rounding * np.linalg.norm(expected)


@functools.cache
def built_in(name, dtype):
    return getattr(ft.cells, name)(hidden=3, inputs=2, dtype=dtype)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *(
            (name, jnp.bfloat16)
            for name in (
                "rnn",
                "gru",
                "lstm",
                "leaky",
                "highway",
                "elstm",
                "diagonal",
                "rtu",
                "mingru",
                "gtu",
            )
        ),
        ("gru", jnp.float16),
    ],
)
def test_a_built_in_cell_has_its_gradient_in_half_precision(name, dtype):
    cell = built_in(name, dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(cell.init(jax.random.key(0)))} == {np.dtype(dtype)}
    assert_gradient(ft.rtrl(cell), cell, built_in(name, jnp.float32), float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, jnp.bfloat16) for name in LEARNERS), ("ok", jnp.float16)]
)
def test_a_learner_of_full_rank_is_exact_in_half_precision(name, dtype):
    cell = built_in("gru", dtype)
    assert_gradient(LEARNERS[name](cell), cell, built_in("gru", jnp.float32), float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize("name", ["uoro", "kf_rtrl", "ktp", "tbptt", "eprop"])
def test_every_other_learner_takes_half_precision(name):
    cell = built_in("rnn", jnp.bfloat16)
    options = {"ktp": {"rank": 2}, "tbptt": {"window": 2}}.get(name, {})
    learner, params = getattr(ft, name)(cell, **options), cell.init(jax.random.key(0))
    state, x = learner.init(jax.random.key(1), params, lanes=2), jnp.ones((2, 2), jnp.bfloat16)
    state, _ = jax.lax.scan(lambda state, x: learner.step(params, state, x), state, jnp.stack([x, x]))
    gradient = learner.grad(params, state, state.hidden)
    assert all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(("dtype", "count"), [(jnp.bfloat16, 300), (jnp.float16, 3000)])
def test_influences_of_half_precision_are_sums_in_float32(dtype, count):
    """Of ones, bfloat16 counts to 256 and float16 to 2048."""

    def step(p, h, x):
        return h + (p["a"] * x - jax.lax.stop_gradient(p["a"] * x))

    one = jnp.ones(1, dtype)
    cell = ft.cell(step, init=lambda key: {"a": one}, hidden=jnp.zeros(1, dtype), inputs=one)
    learner, params = ft.rtrl(cell), {"a": one}
    state, _ = jax.lax.scan(
        lambda state, x: (learner.step(params, state, x)[0], None),
        learner.init(jax.random.key(1), params),
        jnp.ones((count, 1), dtype),
    )
    assert learner.grad(params, state, one)["a"][0] == jnp.asarray(count, dtype)


# Mixed precision: parameters and state in float32, products in half precision, and the like.


def products_in(dtype, **options):
    def step(p, h, x):
        w, v = (p[name].astype(dtype) for name in "wv")
        z = jax.lax.dot(w, h.astype(dtype), **options) + jax.lax.dot(v, x.astype(dtype), **options)
        return jnp.tanh(z.astype(jnp.float32)).astype(h.dtype)

    return step


def own(step, params=jnp.float32, hidden=jnp.float32):
    def init(key):
        w, v = jax.random.split(key)
        parts = {"w": jax.random.normal(w, (3, 3)) / 2, "v": jax.random.normal(v, (3, 2))}
        return jax.tree.map(lambda a: a.astype(params), parts)

    return ft.cell(step, init=init, hidden=jnp.zeros(3, hidden), inputs=2)


MIXED = {
    "products in bfloat16": lambda: own(products_in(jnp.bfloat16)),
    "products in float16": lambda: own(products_in(jnp.float16)),
    "sums in float32": lambda: own(products_in(jnp.bfloat16, preferred_element_type=jnp.float32)),
    "weights in bfloat16": lambda: own(products_in(jnp.float32), params=jnp.bfloat16),
    "state in bfloat16": lambda: own(products_in(jnp.float32), hidden=jnp.bfloat16),
}


@pytest.mark.parametrize(
    ("name", "case"), [*(("ok:block", case) for case in MIXED), ("sketch", "products in bfloat16")]
)
def test_mixed_precision_is_exact_to_the_coarsest_rounding(name, case):
    cell, reference = MIXED[case](), own(products_in(jnp.float32))
    rounding = ft.structure_of(cell).rounding
    assert rounding == float(jnp.finfo(jnp.float16 if "float16" in case.split() else jnp.bfloat16).eps)
    assert_gradient(LEARNERS[name](cell), cell, reference, rounding)


def test_a_flax_cell_that_multiplies_in_half_precision_is_taken():
    with jax.numpy_dtype_promotion("standard"):  # which these cells rely on
        cell, reference = (
            ft.from_flax(functools.partial(nnx.GRUCell, 2, 3, dtype=dtype))
            for dtype in (jnp.bfloat16, None)
        )
        assert_gradient(ft.rtrl(cell), cell, reference, float(jnp.finfo(jnp.bfloat16).eps))


def test_a_wrong_factorisation_cannot_be_missed_in_half_precision(monkeypatch):
    from foretrace.structure._structure import Structure

    factors = Structure.factors
    monkeypatch.setattr(Structure, "factors", lambda *args: tuple(1.5 * f for f in factors(*args)))
    for cell in ft.cells.rnn(hidden=3, inputs=2, dtype=jnp.bfloat16), own(products_in(jnp.bfloat16)):
        with pytest.raises(RuntimeError, match="does not give its derivative"):
            ft.structure_of(cell)


def test_off_the_cpu_float32_may_be_rounded_to_tf32(monkeypatch):
    """As a GPU does with products: 1 % of them is no fault of the structure."""
    from foretrace.structure._structure import Structure

    factors = Structure.factors
    monkeypatch.setattr(Structure, "factors", lambda *args: tuple(1.01 * f for f in factors(*args)))
    with pytest.raises(RuntimeError, match="does not give its derivative"):
        ft.structure_of(ft.cells.rnn(hidden=3, inputs=2))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    ft.structure_of(ft.cells.rnn(hidden=3, inputs=2))
