"""Pasts in bfloat16: the mean of every rounding, of every learner's gradients, and what they take."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import foretrace as ft
from foretrace.learners import SPECS, analyse, parse
from foretrace.learners._engine._rounded import draws, round_by, rounded
from foretrace.learners._engine._sparse import SparseRule
from foretrace.runs import checkpoint
from foretrace.testing import check_learner
from oracles import (
    assert_close,
    draw,
    quick_compilation,  # noqa: F401
    run,
    stream,
)

LARGEST = float(jnp.finfo(jnp.bfloat16).max)
EVERY_DRAW = jnp.arange(2**16, dtype=jnp.uint32)
# Learner, cell, claims of the conformance suite.
LEARNERS = {
    "eprop": ("eprop", "lstm", False),
    "kf_rtrl": ("kf_rtrl", "highway", True),
    "ktp": ("ktp:2", "highway", True),
    "low_rank": ("low_rank:1/2", "gru", True),
    "ok": ("ok:1/2", "highway", True),
    "ok, each step": ("ok:1", "rnn", True),
    "rflo": ("rflo", "highway", False),
    "rtrl": ("rtrl", "rnn", True),
    "rtrl, a block": ("rtrl/3", "gru", True),
    "rtrl, units apart": ("rtrl", "elstm", True),
    "rtrl, complex": ("rtrl", "rtu", True),
    "snap": ("snap:1", "rnn", False),
    "uoro": ("uoro", "rnn", True),
}
QUICK = ("ok, each step", "rtrl, complex")


def cell_of(name, size=2):
    return getattr(ft.cells, name)(hidden=size, inputs=2)


def build(name, cell, stored=True):
    return parse(f"{name}@bfloat16" if stored else name).build(cell)


def numbers():
    """float32 of all sizes and both signs, denormal, next to the largest, next to those of bfloat16."""
    rng = np.random.default_rng(0)
    bits = np.concatenate(
        [
            rng.integers(0, 0x7F7F0000, 40, dtype=np.uint32),
            np.array(
                [0, 1, 2, 0xFFFF, 0x10000, 0x10001, 0x7FFFFF, 0x800000, 0x3F7FFFFF, 0x7F7EFFFF], np.uint32
            ),
        ]
    )
    return np.concatenate([bits, bits | np.uint32(0x80000000)]).view(np.float32)


@pytest.mark.parametrize("value", numbers())
def test_the_mean_over_every_draw_is_the_number_itself(value):
    rounded = np.asarray(round_by(EVERY_DRAW, jnp.broadcast_to(value, EVERY_DRAW.shape))).astype(np.float64)
    exact = float(value)
    assert rounded.sum() == exact * 2**16  # a sum of two neighbours, without rounding in float64
    assert len(np.unique(rounded)) <= 2
    assert np.abs(rounded - exact).max() <= max(2.0**-7 * abs(exact), 2.0**-133)


def test_what_bfloat16_holds_stays_as_it_is():
    all_of_them = jax.lax.bitcast_convert_type(jnp.arange(2**16, dtype=jnp.uint16), jnp.bfloat16)
    for value in 0, 1, 2**15, 2**16 - 1:
        rounded = round_by(jnp.full(2**16, value, jnp.uint32), all_of_them.astype(jnp.float32))
        np.testing.assert_array_equal(np.asarray(rounded, np.float32), np.asarray(all_of_them, np.float32))
        assert np.array_equal(np.signbit(rounded), np.signbit(all_of_them)) or np.isnan(rounded).any()


def test_nothing_finite_becomes_infinite_and_no_nan_a_number():
    largest = np.float32(np.finfo(np.float32).max)
    for value, expected in ((largest, LARGEST), (-largest, -LARGEST), (np.inf, np.inf), (-np.inf, -np.inf)):
        assert (np.asarray(round_by(EVERY_DRAW, jnp.full(2**16, value)), np.float32) == expected).all()
    odd = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32).view(np.float32)
    for value in odd:
        bits = jnp.broadcast_to(jnp.asarray(value), EVERY_DRAW.shape)
        assert np.isnan(np.asarray(round_by(EVERY_DRAW, bits), np.float32)).all()


def test_draws_are_uniform_and_any_two_independent():
    """Of all words of two bits: each draw, and each pair of draws, has every value equally often."""
    words = np.array(list(itertools.product(range(4), repeat=5)), np.uint32) << 30
    both = jax.vmap(lambda w: draws([w[:2], w[2:]]))(jnp.asarray(words))
    values = np.asarray(both).reshape(len(words), 6) >> 14
    for i, j in itertools.combinations(range(6), 2):
        counts = np.bincount(4 * values[:, i] + values[:, j], minlength=16)
        assert (counts == len(words) / 16).all()


def test_arrays_of_one_push_round_apart():
    """So that the mean of a product of two is the product of their means, which are the numbers."""
    rule = rounded(SparseRule(ft.structure_of(cell_of("rnn"))))
    values = (jnp.arange(128.0, 256.0) + jnp.linspace(0.2, 0.8, 128)) / 128  # far from those of bfloat16
    keys = jax.random.split(jax.random.key(0), 20_000)
    both = jax.jit(jax.vmap(lambda key: rule._round(key, (values, values))))(keys)
    left, right = (np.asarray(a, np.float64) - np.asarray(values, np.float64) for a in both)
    spread = (left * right).std(axis=0) / np.sqrt(len(keys))
    assert (np.abs((left * right).mean(axis=0)) <= 5 * spread).all()
    # With the same draws for both it would be the variance of one.
    assert (left**2).mean(axis=0).max() > 50 * spread.max() > 0


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in LEARNERS]
)
def test_every_learner_conforms(name):
    """Unbiased ones have the exact gradient as the mean over 1000 keys, within five standard errors."""
    learner, cell, unbiased = LEARNERS[name]
    check_learner(lambda cell: build(learner, cell), cell_of(cell), unbiased=unbiased)


@pytest.mark.parametrize("name", ["eprop", "rflo", "snap"])
def test_the_mean_of_a_biased_learner_is_its_own_gradient(name):
    text, cell_name, _ = LEARNERS[name]
    cell = cell_of(cell_name, 3)
    params, (xs, credits) = draw(cell), stream(cell, 6)
    expected, *_ = run(build(text, cell, stored=False), cell, params, xs, credits)
    keys = jax.random.split(jax.random.key(0), 1000)
    learner = build(text, cell)
    gradients = jax.jit(jax.vmap(lambda key: run(learner, cell, params, xs, credits, key)[0]))(keys)
    for got, want in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        error = np.std(got, axis=0) / np.sqrt(len(keys))
        assert (np.abs(np.mean(got, axis=0) - want) <= 5 * error + 1e-6 * (1 + np.abs(want))).all()
        assert error[1:].max() > 0


def test_rounding_to_the_nearest_would_lose_what_a_step_adds():
    """A thousand steps that each add 1/1000 of what is there: the sum of the mean is not the sum."""

    def step(p, h, x):
        return h + (p["a"] * x - jax.lax.stop_gradient(p["a"] * x))

    one = jnp.ones(1)
    cell = ft.cell(step, init=lambda key: {"a": one}, hidden=jnp.zeros(1), inputs=one)
    learner, params = ft.rtrl(cell, past_dtype=jnp.bfloat16), {"a": one}

    @jax.jit
    def count(key):
        state = learner.init(key, params)
        state, _ = jax.lax.scan(
            lambda state, x: (learner.step(params, state, x)[0], None), state, jnp.ones((1000, 1))
        )
        return learner.grad(params, state, one)["a"][0]

    totals = np.asarray(jax.vmap(count)(jax.random.split(jax.random.key(0), 400)))
    assert abs(totals.mean() - 1000) < 5 * totals.std() / 20 and 0 < totals.std() < 100
    nearest = jnp.zeros((), jnp.bfloat16)
    for _ in range(1000):
        nearest = (nearest.astype(jnp.float32) + 1).astype(jnp.bfloat16)
    assert nearest == 256


@pytest.mark.parametrize(
    ("name", "cell"),
    [("rtrl", "gru"), ("ok:8", "gru"), ("uoro", "gru"), ("rtrl", "elstm"), ("rflo", "leaky")],
)
def test_a_past_takes_half_the_bytes(name, cell):
    cell = cell_of(cell, 64)
    state = build(name, cell).init(jax.random.key(0), draw(cell), 3)
    wide = build(name, cell, stored=False).init(jax.random.key(0), draw(cell), 3)
    whole, half = (sum(a.nbytes for a in jax.tree.leaves(s.past)) for s in (wide, state))
    assert abs(half / whole - 0.5) < 1e-3
    costs = [analyse(cell).cost(text, lanes=3).bytes for text in (name, f"{name}@bfloat16")]
    assert costs[0] - costs[1] == whole - half


def test_without_the_option_nothing_is_rounded():
    cell = cell_of("rnn", 3)
    params, (xs, credits) = draw(cell), stream(cell, 5)
    for name in "rtrl", "ok:2", "uoro":
        options = {"rank": 2} if name == "ok:2" else {}
        by_hand = parse(name).spec.factory(cell, past_dtype=None, **options)
        first, *_ = run(build(name, cell, stored=False), cell, params, xs, credits)
        second, *_ = run(by_hand, cell, params, xs, credits)
        assert_close(first, second, 0)


@pytest.mark.parametrize("name", ["ok", "rtrl, complex", "low_rank"])
def test_a_run_goes_on_from_a_checkpoint_bit_for_bit(name, tmp_path):
    text, cell_name, _ = LEARNERS[name]
    cell = cell_of(cell_name, 3)
    learner, params, (xs, _) = build(text, cell), draw(cell), stream(cell, 10, 2)

    @jax.jit
    def go_on(state, xs):
        return jax.lax.scan(lambda state, x: (learner.step(params, state, x)[0], None), state, xs)[0]

    state = go_on(learner.init(jax.random.key(1), params, 2), xs[:5])
    checkpoint.save(tmp_path / "state", state)
    again = checkpoint.load(tmp_path / "state", state)
    first, second = (go_on(s, xs[5:]) for s in (state, again))
    data = [jax.tree.map(_plain, jax.tree.leaves(s)) for s in (first, second)]
    for a, b in zip(*data, strict=True):
        np.testing.assert_array_equal(a, b)


def _plain(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def test_names_of_learners_have_it():
    choice = parse("ok:4/8*2@bfloat16")
    assert str(choice) == "ok:4/8*2@bfloat16" and choice.past_dtype == "bfloat16"
    cell = cell_of("rnn")
    state = choice.build(cell).init(jax.random.key(0), draw(cell))
    assert {a.dtype for a in jax.tree.leaves(state.members.past)} == {np.dtype(jnp.bfloat16)}
    for spec in SPECS.values():
        assert spec.takes_past_dtype == ("past_dtype" in inspect.signature(spec.factory).parameters)


def test_noise_is_measured_by_name():
    cell = cell_of("rnn", 4)
    params, (xs, credits) = draw(cell), stream(cell, 30, 1)
    table = ft.measure_noise(cell, params, xs, credits, ["rtrl/1", "rtrl/1@bfloat16"], draws=8)
    exact, rounded = table.rows
    assert exact.error < 1e-9 and 1e-7 < rounded.error < 1e-3
    assert abs(rounded.bias) < 5 * rounded.bias_error and rounded.state_bytes < exact.state_bytes


@pytest.mark.parametrize("value", [jnp.float16, "float32", jnp.int8, "half", 3, float])
def test_another_dtype_is_refused(value):
    with pytest.raises(ValueError, match=r"^past_dtype must be jnp.bfloat16 or None; got .*; leave it out"):
        ft.rtrl(cell_of("rnn"), past_dtype=value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ok:8@float16", "past_dtype must be jnp.bfloat16 or None; got 'float16'"),
        ("tbptt:25@bfloat16", "tbptt has no past_dtype; got"),
        ("sketch:4@bfloat16", "sketch has no past_dtype; got"),
        ("ok@", "learner must be NAME:NUMBER/BLOCK"),
    ],
)
def test_a_name_of_another_dtype_is_refused(text, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        parse(text)
