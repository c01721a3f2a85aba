"""A loop of your own that survives: kill it at any time, type it again, and it goes on bit for bit.

    python examples/resume.py CHUNKS FOLDER

trains CHUNKS chunks of 200 steps in all, and saves everything that continues after each.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import foretrace as ft

chunks, folder = int(sys.argv[1]), Path(sys.argv[2])
cell = ft.cells.gru(hidden=8, inputs=1)
learner, optimizer = ft.ok(cell, rank=2), optax.adam(1e-2)
step = ft.online(learner)


def loss(params, state, x, y):
    """Squared error of the readout, and the state that goes on."""
    hidden, state = step(params["cell"], state, x)
    return ((hidden @ params["readout"] - y) ** 2).sum(), state


@jax.jit
def chunk(carry, key):
    """200 steps on numbers that come again one step later."""

    def each(carry, sample):
        (value, state), grads = jax.value_and_grad(loss, has_aux=True)(
            carry["params"], carry["state"], *sample
        )
        updates, slots = optimizer.update(grads, carry["slots"])
        return {
            "params": optax.apply_updates(carry["params"], updates),
            "slots": slots,
            "state": state,
        }, value

    xs = jax.random.rademacher(key, (200, 1), jnp.float32)
    return jax.lax.scan(each, carry, (xs, jnp.roll(xs, 1)))


params = {"cell": cell.init(jax.random.key(0)), "readout": jnp.zeros((8, 1))}
carry = {"params": params, "slots": optimizer.init(params)}
carry["state"] = learner.init(jax.random.key(1), params["cell"])
everything = {"carry": carry, "chunk": 0}
if folder.exists():
    everything = ft.load(folder, like=everything)
carry, first = everything["carry"], everything["chunk"]
for number in range(first, chunks):
    # Data from the chunk's own number: a run that goes on sees what it would have seen.
    carry, losses = chunk(carry, jax.random.fold_in(jax.random.key(2), number))
    ft.save(folder, {"carry": carry, "chunk": number + 1})
    print(f"chunk {number + 1}: mean squared error {losses.mean():.9f}")
