"""A cell of Flax, trained online with exact gradients; needs `pip install 'foretrace[flax]'`.

python examples/flax_cell.py [STEPS]
"""

import sys

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import foretrace as ft

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
cell = ft.from_flax(nnx.GRUCell(1, 12, rngs=nnx.Rngs(0)))
print(ft.recommend(cell, unbiased=True).best, "fits best")
learner, optimizer = ft.rtrl(cell, block=8), optax.adam(1e-2)


def each(carry, state, sample):
    """One step: the gradient, then the update."""
    (params, slots), (_, y) = carry, sample

    def loss(readout, hidden):
        return ((hidden @ readout - y) ** 2).sum()

    value, (readout, credit) = jax.value_and_grad(loss, (0, 1))(params["readout"], state.hidden)
    grads = {"cell": learner.grad(params["cell"], state, credit), "readout": readout}
    updates, slots = optimizer.update(grads, slots)
    return (optax.apply_updates(params, updates), slots), value


@jax.jit
def train(params, state, samples):
    """A scan over steps in a scan over blocks."""
    find = {"params": lambda carry: carry[0]["cell"], "inputs": lambda sample: sample[0]}
    return ft.run_blocks(learner, (params, optimizer.init(params)), state, samples, each, **find)


params = {"cell": cell.init(jax.random.key(0)), "readout": jnp.zeros((12, 1))}
state = learner.init(jax.random.key(1), params["cell"])
xs = jax.random.rademacher(jax.random.key(2), (STEPS, 1), jnp.float32)
_, _, losses = train(params, state, (xs, jnp.roll(xs, 2)))
losses, tenth = losses.ravel(), STEPS // 10
print(
    f"mean squared error: first tenth {losses[:tenth].mean():.3f}, last tenth {losses[-tenth:].mean():.3f}"
)
