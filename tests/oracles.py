"""Small cells, and what learners are measured against, computed the stupid way."""

import itertools
import sys
from contextlib import contextmanager
from functools import cache

import jax
import jax.numpy as jnp
import pytest

import foretrace as ft
from foretrace.testing._oracles import assert_close, dot, draw, exact, exact_lanes, noise, stream

__all__ = [
    "CELLS",
    "all_signs",
    "assert_close",
    "assert_unbiased",
    "basis",
    "built_in",
    "dot",
    "draw",
    "exact",
    "exact_lanes",
    "influence",
    "mean_influence",
    "noise",
    "precision",
    "quick_compilation",
    "run",
    "signs_drawn",
    "signs_from",
    "stream",
    "traced",
    "trajectory",
    "user_cell",
]


@pytest.fixture(autouse=True)
def quick_compilation(request):
    """Exact arithmetic needs no optimised code; in float32 the optimisations are tested too."""
    jax.config.update("jax_disable_most_optimizations", "x64" in request.fixturenames)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def precision():
    """float64 under the x64 fixture, else float32."""
    return jnp.zeros(()).dtype


def user_cell(step, shapes, hidden=3, inputs=2):
    """A cell of a user's own; `shapes` maps the names of its parameters to their shapes.

    `hidden` and `inputs` are sizes, in a pytree, or an example.
    """

    def init(key):
        keys = jax.random.split(key, len(shapes))
        pairs = zip(keys, shapes.items(), strict=True)
        return {name: jax.random.normal(k, shape, precision()) for k, (name, shape) in pairs}

    def example(sizes):
        return jax.tree.map(lambda n: jnp.zeros(n, precision()) if isinstance(n, int) else n, sizes)

    return ft.cell(step, init=init, hidden=example(hidden), inputs=example(inputs))


def gain_step(p, h, x):
    z = p["w"] @ h + p["v"] @ x - p["b"]
    return jax.nn.sigmoid(p["decay"]) * h + p["gain"] * jnp.tanh(z)


def gain():
    """One group, and two leaves that are tracked exactly beside it."""
    shapes = {"w": (3, 3), "v": (3, 2), "b": (3,), "decay": (3,), "gain": (3,)}
    return user_cell(gain_step, shapes)


def layers_step(p, h, x):
    low = jnp.tanh(h["low"] @ p["w0"] + x @ p["v0"] + p["b0"])
    high = jnp.tanh(h["high"] @ p["w1"] + low @ p["v1"])
    return {"low": low, "high": high}


def layers():
    """Two layers in one state: two groups."""
    shapes = {"w0": (2, 2), "v0": (2, 2), "b0": (2,), "w1": (1, 1), "v1": (2, 1)}
    return user_cell(layers_step, shapes, hidden={"low": 2, "high": 1})


def built_in(factory, **sizes):
    return lambda: factory(**({"hidden": 3, "inputs": 2} | sizes), dtype=precision())


CELLS = {
    "rnn": built_in(ft.cells.rnn),
    "highway": built_in(ft.cells.highway),
    "highway2": built_in(ft.cells.highway, depth=2),
    "gru": built_in(ft.cells.gru),
    "lstm": built_in(ft.cells.lstm, hidden=2),
    "gain": gain,
    "layers": layers,
}


@cache
def trajectory(learner, cell, lanes):
    """A stream in one scan, compiled once per learner: (gradients at every step, infos, last state)."""

    @jax.jit
    def scanned(params, xs, credits, restart, key):
        def step(state, inputs):
            x, credit, again = inputs
            state = learner.reset(state, again)
            state, info = learner.step(params, state, x)
            return state, (learner.grad(params, state, credit), info)

        state = learner.init(key, params, lanes)
        state, (gradients, infos) = jax.lax.scan(step, state, (xs, credits, restart))
        return gradients, infos, state

    return scanned


def run(learner, cell, params, xs, credits, key=None, lanes=None, restart=None):
    """`trajectory` of a stream that begins again before the steps where `restart` says so."""
    key = jax.random.key(7) if key is None else key
    shape = jax.tree.leaves(xs)[0].shape[: 1 if lanes is None else 2]
    restart = jnp.zeros(shape, bool) if restart is None else restart
    return trajectory(learner, cell, lanes)(params, xs, credits, restart, key)


def all_signs(count):
    """Every vector of `count` signs, (2^count, count)."""
    return jnp.array(list(itertools.product((-1.0, 1.0), repeat=count)))


@contextmanager
def signs_from(source):
    """Replaces the random signs of every learner by `source(count)`."""

    def signs(key, count, dtype):
        return source(count).astype(dtype)

    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("foretrace.") and hasattr(module, "random_signs"):
                patch.setattr(module, "random_signs", signs)
        yield


def common(signs):
    """The same signs for every draw, from the first on."""
    return lambda count: signs[:count]


def in_turn(signs):
    """Signs of its own for every draw, one draw after the other."""
    used = [0]

    def source(count):
        used[0] += count
        return signs[used[0] - count : used[0]]

    return source


def signs_drawn(function, *args, add=max):
    """The most signs that one draw asks for while `function` is traced, or with `sum` those of all."""
    counts = [0]

    def source(count):
        counts.append(count)
        return jnp.ones(count)

    with signs_from(source):
        jax.eval_shape(function, *args)
    return add(counts)


def basis(hidden):
    """All S unit credits, leaves (S, ..)."""
    flat, unravel = jax.flatten_util.ravel_pytree(hidden)
    return jax.vmap(unravel)(jnp.eye(flat.size, dtype=flat.dtype))


def influence(cell, params, xs, restart=None):
    """dh_t/d(params), leaves (steps, S, ..)."""
    steps = len(jax.tree.leaves(xs)[0])

    def one(credit):
        credits = jax.tree.map(lambda a: jnp.repeat(a[None], steps, axis=0), credit)
        return exact(cell, params, xs, credits, restart)

    return jax.vmap(one, out_axes=1)(basis(cell.initial_hidden()))


def mean_influence(learner, cell, params, xs, restart_at=None, every=all_signs, source=common, idle=0):
    """The mean over every sign vector of what the learner reads for every unit credit at each step.

    `restart_at` is a step of the first block before which the stream begins again; `every` lists the sign
    vectors. With `source` common, groups share their signs, which leaves the mean of each as it is; where
    draws depend on each other they must come `in_turn`. The first `idle` ends of a block need no signs.
    """
    length, credits = learner.block, basis(cell.initial_hidden())
    blocks = jax.tree.map(lambda a: a.reshape(-1, length, *a.shape[1:]), xs)
    start = learner.init(jax.random.key(0), params)

    def one_block(state, xs, restart_at=None):
        read = []
        for i in range(length):
            if i == restart_at:
                state = learner.reset(state, jnp.array(True))
            state = learner.advance(params, state, jax.tree.map(lambda a, i=i: a[i], xs))
            read.append(jax.vmap(lambda c, s=state: learner.grad(params, s, c))(credits))
        return state, jax.tree.map(lambda *leaves: jnp.stack(leaves), *read)

    def later_block(state, inputs):
        xs, signs = inputs
        with signs_from(source(signs)):
            state, _ = learner.end_block(params, state)
        return one_block(state, xs)

    def trajectory(signs):
        first, rest = (jax.tree.map(lambda a, s=s: a[s], blocks) for s in (0, slice(1, None)))
        state, head = one_block(start, first, restart_at)
        _, tail = jax.lax.scan(later_block, state, (rest, signs))
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), head, tail)

    width = signs_drawn(learner.end_block, params, start, add=max if source is common else sum)
    ends = len(jax.tree.leaves(blocks)[0]) - 1 - idle
    assert 0 < width * ends <= 14, f"{width * ends} signs are too many to enumerate, or none"
    signs = every(width * ends).reshape(-1, ends, width)
    signs = jnp.concatenate([jnp.ones((len(signs), idle, width)), signs], axis=1)
    mean = jax.jit(lambda s: jax.tree.map(lambda a: jnp.mean(a, axis=0), jax.vmap(trajectory)(s)))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), mean(signs))


def assert_unbiased(learner, cell, params, xs, restart_at=None, every=all_signs, source=common, idle=0):
    """The mean over every sign vector is the exact influence matrix, at every step."""
    steps = len(jax.tree.leaves(xs)[0])
    restart = None if restart_at is None else jnp.arange(steps) == restart_at
    got = mean_influence(learner, cell, params, xs, restart_at, every, source, idle)
    assert_close(got, influence(cell, params, xs, restart))


def traced(function, **options):
    """`jax.jit(function)`, and a list that grows whenever it is traced, and so compiled, anew."""
    traces = []

    def counting(*args):
        traces.append(len(args))
        return function(*args)

    return jax.jit(counting, **options), traces
