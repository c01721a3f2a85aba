"""Trains every learner on one device and on meshes of eight, and prints what differs, as JSON lines.

Run by `test_scale.py` in a process of its own, whose CPU has eight virtual devices:

    JAX_NUM_CPU_DEVICES=9 python tests/devices.py float32 ok rtrl
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

import conftest  # noqa: F401  types execute, no key is used twice
import foretrace as ft
import test_testing

HIDDEN, LANES, STEPS = 16, 8, 4
MESHES = {"1x8": (1, 8), "8x1": (8, 1), "2x4": (2, 4)}


def build(name, dtype):
    """A learner of the conformance suite on its cell, of a size that eight devices divide."""
    make, cell, _ = (test_testing.LEARNERS | test_testing.CONTRIB)[name]
    if name == "ktp":
        # Of a lower rank it reduces products that are equally large by construction: rounding, which a
        # divided sum changes, decides which of them are mixed, and so which draw is made.
        make = lambda cell: ft.ktp(cell, rank=HIDDEN)  # noqa: E731
    if cell == "with_synthesizer":
        cell = ft.contrib.with_synthesizer(ft.cells.rnn(hidden=HIDDEN, inputs=3, dtype=dtype))
    else:
        cell = getattr(ft.cells, cell)(hidden=HIDDEN, inputs=3, dtype=dtype)
    return make(cell), cell


def program(learner, place=lambda carry: carry):
    """Steps with an update after each; a lane begins anew in between."""

    def run(params, state, xs, restarts):
        def step(carry, inputs):
            (params, state), (x, restart) = carry, inputs
            state, _ = learner.step(params, learner.reset(state, restart), x)
            gradient = learner.grad(params, state, jax.tree.map(jnp.sin, state.hidden))
            params = jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient)
            return (params, state), gradient

        carry, gradients = jax.lax.scan(step, (params, state), (xs, restarts))
        return place(carry), gradients

    return run


def numbers(tree):
    """The bytes of a tree's floats on one device, and on all as if each were there once."""
    leaves = [a for a in jax.tree.leaves(tree) if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key)]
    return sum(a.addressable_shards[0].data.nbytes for a in leaves), sum(a.nbytes for a in leaves)


def distance(tree, other):
    """The largest difference, relative to the largest number of its array."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in pairs if a.size]
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in pairs)


def main(dtype, names):
    jax.config.update("jax_disable_most_optimizations", True)
    for name in names:
        learner, cell = build(name, dtype)
        params = cell.init(jax.random.key(0))
        xs = jax.random.normal(jax.random.key(1), (STEPS, LANES, 3), dtype)
        restarts = jnp.zeros((STEPS, LANES), bool).at[2, 1].set(True)
        init = jax.jit(learner.init, static_argnums=2)
        _, plain = jax.jit(program(learner))(params, init(jax.random.key(2), params, LANES), xs, restarts)
        for label, (lanes, units) in MESHES.items():
            mesh = ft.scale.mesh(lanes=lanes, units=units)
            sharded, layout = ft.scale.shard(learner, mesh, cell), ft.scale.Layout(cell, mesh)
            placed = jax.device_put(params, layout.params(params))
            state = jax.jit(sharded.init, static_argnums=2)(jax.random.key(2), placed, LANES)

            def place(carry, layout=layout, learner=learner):
                shardings = layout.params(carry[0]), layout.state(carry[1], learner)
                return jax.lax.with_sharding_constraint(carry, shardings)

            run = jax.jit(program(sharded, place))
            compiled = run.lower(placed, state, xs, restarts).compile()
            (placed, state), gradient = compiled(placed, state, xs, restarts)
            # What comes out lies where it lay when it went in, so that nothing is compiled anew.
            compiled(placed, state, xs, restarts)
            past = getattr(state, "past", ())
            line = {
                "name": name,
                "mesh": label,
                "difference": distance(gradient, plain),
                "past": numbers(past),
                "params": numbers(placed),
                "arguments": ft.scale.held(compiled)["arguments"],
                "sent": ft.scale.sent(compiled) / STEPS,
                "kinds": sorted({each.kind for each in ft.scale.collectives(compiled)}),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", sys.argv[1] == "float64")
    main(jnp.dtype(sys.argv[1]), sys.argv[2:])
