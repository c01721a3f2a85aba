"""A loop of your own: a GRU learns to say again what it heard three steps before, one update at every step.

python examples/own_loop.py [STEPS]
"""

import sys

import jax
import jax.numpy as jnp
import optax

import foretrace as ft

STEPS, DELAY, UNITS = int(sys.argv[1]) if len(sys.argv) > 1 else 8000, 3, 16
cell = ft.cells.gru(hidden=UNITS, inputs=1)
learner = ft.ok(cell, rank=4)
step, optimizer = ft.online(learner), optax.adam(1e-2)


def loss(params, state, x, y):
    """Squared error of the readout, and the state that goes on."""
    hidden, state = step(params["cell"], state, x)
    return ((hidden @ params["readout"] - y) ** 2).sum(), state


@jax.jit
def train(params, slots, state, xs):
    """One pass over a stream."""

    def each(carry, sample):
        params, slots, state = carry
        (value, state), grads = jax.value_and_grad(loss, has_aux=True)(params, state, *sample)
        updates, slots = optimizer.update(grads, slots)
        return (optax.apply_updates(params, updates), slots, state), value

    return jax.lax.scan(each, (params, slots, state), (xs, jnp.roll(xs, DELAY)))


params = {"cell": cell.init(jax.random.key(0)), "readout": jnp.zeros((UNITS, 1))}
state = learner.init(jax.random.key(1), params["cell"])
xs = jax.random.rademacher(jax.random.key(2), (STEPS, 1), jnp.float32)
_, losses = train(params, optimizer.init(params), state, xs)
tenth = STEPS // 10
print(
    f"mean squared error: first tenth {losses[:tenth].mean():.3f}, last tenth {losses[-tenth:].mean():.3f}"
)
