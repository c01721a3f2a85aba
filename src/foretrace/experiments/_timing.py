"""How long a loop takes: compiled to last long enough to be timed, and timed in turns with others.

Figures that are compared come from one process and are taken in turns, so that other load of the machine
falls on all of them.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._types import Learner, Params, at_phase
from foretrace.learners import run_blocks

_TARGET = 0.25  # seconds that one run of a loop lasts, about


class Loop(NamedTuple):
    """A compiled loop: `run(state) -> state`, of `steps` steps."""

    run: Callable[[Any], Any]
    state: Any
    steps: int
    compile_seconds: float


def learning_loop(learner: Learner, params: Params, inputs: Any, *, sweep: bool = False) -> Loop:
    """Forward, gradient and update at every step; with `sweep`, one of the latter per block.

    Args:
        learner: the learner.
        params: of its cell, where the loop begins.
        inputs: of one block, leaves (block, lanes, ..), the same for every block.
        sweep: whether there is one update per block.
    """
    lanes = jax.tree.leaves(inputs)[0].shape[1]

    def update(params, gradient):
        return jax.tree.map(lambda p, g: p - 1e-6 * g, params, gradient)

    def each(params, state, x):
        if sweep:
            return params, state.hidden
        return update(params, learner.grad(params, state, state.hidden)), None

    def end(params, state, credits):
        return update(params, learner.sweep(params, state, credits)), None

    def blocks(carry, count):
        params, state = carry[0], at_phase(carry[1], 0)  # where every run of whole blocks begins
        # A scan over calls of one block each would cost a loop more.
        xs = jax.tree.map(lambda a: jnp.tile(a, (count,) + (1,) * (a.ndim - 1)), inputs)
        params, state, _ = run_blocks(learner, params, state, xs, each, end if sweep else None)
        return params, state

    return compiled(blocks, (params, learner.init(jax.random.key(1), params, lanes=lanes)), learner.block)


def compiled(repeat: Callable[[Any, int], Any], carry: Any, length: int) -> Loop:
    """Compiles `repeat(carry, count)` for a count that lasts long enough to be timed.

    Args:
        repeat: `(carry, count) -> carry`.
        carry: at the start.
        length: steps in each of the `count`.
    """

    def lowered(count):
        return jax.jit(lambda carry: repeat(carry, count), donate_argnums=0).lower(carry)

    carry, count, least = jax.tree.map(jnp.copy, carry), 2, 0.0
    while least < _TARGET / 8:  # so short a run is mostly the call itself, and says little of the steps
        if least:
            count = max(2, round(count * _TARGET / least / 4))
        probe, least = lowered(count).compile(), float("inf")
        for _ in range(4):
            start = time.perf_counter()
            carry = jax.block_until_ready(probe(carry))
            least = min(least, time.perf_counter() - start)
    count = max(2, round(count * _TARGET / least))
    program = lowered(count)
    start = time.perf_counter()
    run = program.compile()
    seconds = time.perf_counter() - start
    return Loop(run, carry, count * length, seconds)


def take_turns(loops: dict[str, Loop], repeats: int) -> dict[str, np.ndarray]:
    """Microseconds per step of every loop, one figure per turn; the first turn is a warm-up."""
    states = {key: loop.state for key, loop in loops.items()}
    times: dict[str, list[float]] = {key: [] for key in loops}
    for _ in range(repeats + 1):
        for key, loop in loops.items():
            start = time.perf_counter()
            states[key] = jax.block_until_ready(loop.run(states[key]))
            times[key].append((time.perf_counter() - start) / loop.steps * 1e6)
    return {key: np.array(turns[1:]) for key, turns in times.items()}


def spread(us: np.ndarray) -> dict[str, float]:
    """Median, least and most."""
    return {"us": float(np.median(us)), "us_min": float(us.min()), "us_max": float(us.max())}


def state_bytes(state: Any) -> int:
    """Bytes of all arrays of a pytree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state))
