"""What a step costs, as the compiler counts it: growth with sizes, compilations, memory over time."""

import re
import resource
from functools import cache, partial

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import foretrace as ft
from foretrace import tasks
from foretrace._types import at_phase
from foretrace.learners._engine import _lanes
from foretrace.training import trainer
from oracles import traced


def block_step(learner, params, inputs, state):
    """One block as the training loop runs it: steps with a gradient each, then the push."""

    def one(carry, xs):
        params, state = carry
        index, x = xs
        state = learner.advance(params, at_phase(state, index), x)
        gradient = learner.grad(params, state, state.hidden)
        return (jax.tree.map(lambda p, g: p - 1e-6 * g, params, gradient), state), None

    (params, state), _ = jax.lax.scan(one, (params, state), (jnp.arange(len(inputs)), inputs))
    return params, learner.end_block(params, state)[0]


def block_of(make, hidden, lanes=2, block=1, inputs=4):
    """`block_step` of a learner, traced."""
    cell = ft.cells.highway(hidden=hidden, inputs=inputs)
    learner = make(cell)
    params = cell.init(jax.random.key(0))
    state = learner.init(jax.random.key(1), params, lanes=lanes)
    xs = jnp.ones((block, lanes, inputs))
    return jax.jit(partial(block_step, learner)).trace(params, xs, state)


def compiled(make, **sizes):
    return block_of(make, **sizes).lower().compile()


@cache
def counted(make, **sizes):
    """What the compiler counts, by name; once per program."""
    return compiled(make, **sizes).cost_analysis()


def exponent(low, high, quantity):
    """The power of a size with which a quantity grows between two cases a factor 2 apart."""
    a, b = (counted(make, **sizes)[quantity] for make, sizes in (low, high))
    return np.log2(b / a)


@pytest.mark.parametrize("name", ["ok", "ktp", "sketch"])
def test_on_a_gpu_no_decomposition_takes_one_lane_after_the_other(name):
    def make(cell):
        return getattr(ft, name)(cell, rank=4, block=16)

    program = block_of(make, hidden=8, block=16).lower(lowering_platforms=("cuda",)).as_text()
    called = set(re.findall(r"custom_call @(cu\w+)", program))
    # Of those that JAX calls there, these have a form for many small matrices.
    batched = {"cusolver_geqrf_ffi", "cusolver_potrf_ffi", "cusolver_gesvdj_ffi", "cusolver_syevd_ffi"}
    assert called and called <= batched


LEARNERS = {
    "ok": (lambda cell: ft.ok(cell, rank=8), 3),
    "kf_rtrl": (lambda cell: ft.kf_rtrl(cell), 3),
    "rtrl": (lambda cell: ft.rtrl(cell), 4),
    "uoro": (lambda cell: ft.uoro(cell), 2),
    "tbptt": (lambda cell: ft.tbptt(cell, window=1), 2),
}


CONTRIB = {
    "kernl": (ft.contrib.kernl, 2),
    "pre_uoro": (ft.contrib.pre_uoro, 2),
    "r_kf_rtrl": (ft.contrib.r_kf_rtrl, 3),
}


@pytest.mark.parametrize("name", LEARNERS | CONTRIB)
def test_operations_grow_with_units_as_documented(name):
    make, power = (LEARNERS | CONTRIB)[name]
    units = 64 if name in LEARNERS else 128  # where the leading term is small, it leads later
    found = exponent((make, {"hidden": units}), (make, {"hidden": 2 * units}), "flops")
    assert abs(found - power) < 0.25


def multiplications(function, *args, turns):
    """In matrix products; those in a loop count as often as it turns, `turns` if that is not fixed."""

    def count(jaxpr):
        total = 0
        for eqn in jaxpr.eqns:
            times = eqn.params.get("length", turns if eqn.primitive.name == "while" else 1)
            total += times * sum(count(inner) for inner in jax.extend.core.jaxprs_in_params(eqn.params))
            if eqn.primitive.name == "dot_general":
                (summed, _), _ = eqn.params["dimension_numbers"]
                shape = eqn.invars[0].aval.shape
                total += eqn.outvars[0].aval.size * int(np.prod([shape[axis] for axis in summed]))
        return total

    return count(jax.make_jaxpr(function)(*args).jaxpr)


@pytest.mark.parametrize(("block_of", "power"), [(lambda n: n, 3), (lambda n: 1, 4)], ids=["n", "1"])
def test_rtrl_with_a_block_of_n_steps_is_schmidhubers_at_the_cube_of_n(block_of, power):
    def per_step(units):
        """At every step a gradient, back to the block's start at most; once per block a push."""
        cell, block = ft.cells.rnn(hidden=units, inputs=4), block_of(units)
        learner, params = ft.rtrl(cell, block=block), cell.init(jax.random.key(0))
        state = learner.init(jax.random.key(1), params)
        count = partial(multiplications, turns=block)
        step = count(learner.advance, params, state, jnp.ones(4))
        gradient = count(learner.grad, params, state, state.hidden)
        return step + gradient + count(learner.end_block, params, state) / block

    assert abs(np.log2(per_step(64) / per_step(32)) - power) < 0.25


def test_operations_of_ok_grow_linearly_with_rank():
    low, high = (lambda cell, r=r: ft.ok(cell, rank=r) for r in (8, 16))
    found = exponent((low, {"hidden": 128}), (high, {"hidden": 128}), "flops")
    assert abs(found - 1) < 0.2


@pytest.mark.parametrize(
    ("name", "quantity"),
    [*((name, "flops") for name in LEARNERS)]
    # The bytes of tbptt are those of the parameters, which all lanes share.
    + [(name, "bytes accessed") for name in LEARNERS if name != "tbptt"],
)
def test_operations_and_bytes_grow_linearly_with_lanes(name, quantity):
    make, _ = LEARNERS[name]
    low, high = ((make, {"hidden": 64, "lanes": lanes}) for lanes in (32, 64))  # weights are shared
    assert abs(exponent(low, high, quantity) - 1) < 0.15


@pytest.mark.parametrize(("name", "power"), [("ok", 2), ("kf_rtrl", 2), ("rtrl", 3), ("uoro", 2)])
def test_bytes_grow_with_units_as_the_documented_memory(name, power):
    make, _ = LEARNERS[name]
    found = exponent((make, {"hidden": 64}), (make, {"hidden": 128}), "bytes accessed")
    assert abs(found - power) < 0.35


def test_a_block_moves_the_past_once_and_not_at_every_step():
    # The largest product of OK is counted once in both programs, whatever the block.
    one, eight = (
        compiled(lambda cell, k=k: ft.ok(cell, rank=16, block=k), hidden=128, block=k).cost_analysis()
        for k in (1, 8)
    )
    assert eight["flops"] < 2 * one["flops"]


def test_lanes_whose_pasts_do_not_fit_the_cache_share_what_a_push_needs(monkeypatch):
    def temporary(cache):
        monkeypatch.setattr(_lanes, "_CACHE", cache)
        program = compiled(lambda cell: ft.ok(cell, rank=4, block=8), hidden=32, lanes=16, block=8)
        return program.memory_analysis().temp_size_in_bytes

    assert temporary(0) < temporary(10**9) / 2


@pytest.mark.parametrize(("block", "cache"), [(1, 10**9), (4, 10**9), (4, 0)])
@pytest.mark.parametrize("name", ["ok", "kf_rtrl", "uoro"])
def test_a_training_does_not_copy_the_past(name, block, cache, monkeypatch):
    monkeypatch.setattr(_lanes, "_CACHE", cache)
    cell, options = ft.cells.highway(hidden=12, inputs=4), {"rank": 3} if name == "ok" else {}
    learner = getattr(ft, name)(cell, block=block, **options)
    made = trainer(
        cell, learner, tasks.copy(), optax.sgd(1e-3), lanes=2, steps=8, update_every=block, clip=1.0
    )
    carry = jax.eval_shape(made.init, jax.random.key(0))
    past = {leaf.shape for leaf in jax.tree.leaves(carry.streams.learner.past) if leaf.size > 100}
    text = jax.jit(lambda carry: made.chunk(carry)[0], donate_argnums=0).lower(carry).compile().as_text()
    copied = set(re.findall(r"= f32\[([\d,]+)\]\S* copy\(", text))
    assert past
    assert not copied & {",".join(map(str, shape)) for shape in past}


def test_memory_is_the_same_after_a_thousand_and_a_hundred_thousand_steps():
    cell = ft.cells.rnn(hidden=3, inputs=2)
    learner = ft.ok(cell, rank=2, block=4)
    params = cell.init(jax.random.key(0))

    def run(blocks, params, state):
        def block(carry, _):
            return block_step(learner, carry[0], jnp.ones((4, 2)), carry[1]), None

        return jax.lax.scan(block, (params, state), length=blocks)[0]

    peaks, resident = [], []
    for steps in (1_000, 100_000):
        state = learner.init(jax.random.key(1), params)
        program = jax.jit(partial(run, steps // 4)).lower(params, state).compile()
        memory = program.memory_analysis()
        peaks.append(memory.temp_size_in_bytes + memory.output_size_in_bytes)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        out = jax.block_until_ready(program(params, state))
        resident.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out[0]))
    assert peaks[0] == peaks[1]
    assert resident[1] < 10_000  # kilobytes


@pytest.mark.parametrize("name", LEARNERS)
def test_a_second_call_compiles_nothing(name):
    cell = ft.cells.highway(hidden=4, inputs=4)
    learner = LEARNERS[name][0](cell)
    params = cell.init(jax.random.key(0))
    state = learner.init(jax.random.key(1), params, lanes=2)
    run, traces = traced(partial(block_step, learner))
    for value in (0.5, 2.0, -1.0):
        params, state = run(params, value * jnp.ones((1, 2, 4)), state)
    assert len(traces) == 1


def decompositions(text):
    """Per computation of a program, how many others each decomposition, or loop of some, waits for."""
    parts = map(str.strip, text.split("\n\n"))
    parts = {re.match(r"(?:ENTRY )?%?([\w.-]*)", part)[1]: part for part in parts}

    @cache
    def decomposes(line):
        called = re.findall(r"(?:body|calls|to_apply)=%?([\w.-]+)", line)
        return 'custom_call_target="lapack' in line or any(map(decomposes, map(parts.get, called)))

    found = []
    for part in parts.values():
        before, waits = {}, []  # of every value, the decompositions that must be over first
        for name, call in re.findall(r"(?m)^\s+(?:ROOT )?%?([\w.-]+) = (.*)$", part):
            operands = re.findall(r"%([\w.-]+)", call)
            known = set().union(*(before.get(operand, set()) for operand in operands))
            if decomposes(call):
                waits.append(len(known))
                known = known | {name}
            before[name] = known
        found += [sorted(waits)] if waits else []
    return found


@pytest.mark.parametrize(("name", "count"), [("ok", 5), ("ktp", 15)])
@pytest.mark.parametrize("block", [1, 3])
def test_no_two_decompositions_run_at_once(name, count, block):
    cell = ft.cells.gru(hidden=6, inputs=2)
    learner = getattr(ft, name)(cell, rank=2, block=block)
    params = cell.init(jax.random.key(0))
    state = learner.init(jax.random.key(1), params, lanes=4)
    text = jax.jit(learner.step).lower(params, state, jnp.ones((4, 2))).compile().as_text()
    found = decompositions(text)
    # Of all three groups, the loop that raises the level among them; each waits for all those before it.
    assert list(range(count)) in found
    assert all(waits == list(range(len(waits))) for waits in found)


@pytest.mark.parametrize(
    "cell",
    [
        ft.cells.gru(hidden=6, inputs=2),
        ft.cells.stack([ft.cells.lstm(hidden=5, inputs=2), ft.cells.rnn(hidden=6, inputs=5)]),
    ],
)
def test_no_two_decompositions_run_at_once_for_the_first_weights_of_many_seeds(cell):
    keys = jax.random.split(jax.random.key(0), 3)
    found = decompositions(jax.jit(jax.vmap(cell.init)).lower(keys).compile().as_text())
    assert found
    assert all(waits == list(range(len(waits))) for waits in found)
