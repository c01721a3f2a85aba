"""What exact RTRL costs where the recurrence is diagonal, beside a forward and backward pass of one step.

`python benchmarks/diagonal.py --units 1024 --inputs 32 --lanes 1 --out diagonal.json`
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp

import foretrace as ft
from foretrace._types import at_phase

CELLS = {"diagonal": ft.cells.diagonal, "rtu": ft.cells.rtu, "elstm": ft.cells.elstm}


def plain(cell):
    """One step of TBPTT-1 written by hand: the cost of a forward and a backward pass."""

    def run(params, carry, x):
        def loss(params):
            hidden = jax.vmap(cell.step, in_axes=(None, 0, 0))(params, carry, x)
            return 0.5 * jnp.sum(hidden**2), hidden

        gradient, hidden = jax.grad(loss, has_aux=True)(params)
        return gradient, hidden

    return run, lambda params, lanes: jnp.repeat(cell.initial_hidden()[None], lanes, axis=0)


def online(learner):
    """One step of a learner with its gradient."""

    def run(params, state, x):
        state, _ = learner.step(params, state, x)
        return learner.grad(params, state, state.hidden), state

    return run, lambda params, lanes: learner.init(jax.random.key(1), params, lanes=lanes)


def trained(learner):
    """The same as the trainer does it: the gradient before the step joins the past."""

    def run(params, state, x):
        state = learner.advance(params, at_phase(state, 0), x)
        gradient = learner.grad(params, state, state.hidden)
        return gradient, learner.end_block(params, state)[0]

    return run, lambda params, lanes: learner.init(jax.random.key(1), params, lanes=lanes)


def timed(run, start, cell, lanes, inputs, steps):
    """A function that runs `steps` steps with an update at each, and returns seconds per step."""
    params = cell.init(jax.random.key(0))
    xs = jax.random.normal(jax.random.key(2), (steps, lanes, inputs))

    @jax.jit
    def go(params, state):
        def step(carry, x):
            params, state = carry
            gradient, state = run(params, state, x)
            return (jax.tree.map(lambda p, g: p - 1e-9 * g, params, gradient), state), None

        return jax.lax.scan(step, (params, state), xs)[0]

    state = start(params, lanes)
    jax.block_until_ready(go(params, state))

    def once():
        begin = time.perf_counter()
        jax.block_until_ready(go(params, state))
        return (time.perf_counter() - begin) / steps

    return once


def main():
    """Prints the table and, with --out, keeps it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=1024)
    parser.add_argument("--inputs", type=int, default=32)
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--cells", nargs="*", choices=CELLS, default=list(CELLS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    table = {}
    for name in options.cells:
        cell = CELLS[name](hidden=options.units, inputs=options.inputs)
        kinds = {
            "forward + backward": plain(cell),
            "tbptt:1": online(ft.tbptt(cell, window=1)),
            "rtrl, step and grad": online(ft.rtrl(cell)),
            "rtrl, trained": trained(ft.rtrl(cell)),
        }
        sizes = cell, options.lanes, options.inputs, options.steps
        ready = {kind: timed(*pair, *sizes) for kind, pair in kinds.items()}
        # In turns, so that a busy moment is shared by all.
        times = {kind: [] for kind in ready}
        for _ in range(options.repeats):
            for kind, once in ready.items():
                times[kind].append(once())
        table[name] = {kind: statistics.median(found) for kind, found in times.items()}
        base = table[name]["forward + backward"]
        for kind, seconds in table[name].items():
            print(f"{name:10} {kind:20} {seconds * 1e6:10.1f} us  {seconds / base:6.2f} x", flush=True)
    if options.out:
        sizes = {key: getattr(options, key) for key in ("units", "inputs", "lanes")}
        options.out.write_text(json.dumps({"settings": sizes, "seconds": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
