"""Lanes on two devices: JAX places half of the streams on each, and the program stays as it was.

    python examples/two_devices.py

On a machine with one CPU these are two virtual devices.
"""

import jax

jax.config.update("jax_num_cpu_devices", 2)  # before JAX looks for devices

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

import foretrace as ft  # noqa: E402

LANES, STEPS = 8, 50
cell = ft.cells.gru(hidden=8, inputs=2)
learner = ft.rtrl(cell)
params = cell.init(jax.random.key(0))
xs = jax.random.normal(jax.random.key(1), (STEPS, LANES, 2))


@jax.jit
def gradient(params, state, xs):
    """The gradient of the last step's loss, through all steps, summed over lanes."""
    state, _ = jax.lax.scan(lambda state, x: learner.step(params, state, x), state, xs)
    return learner.grad(params, state, state.hidden), state


state = learner.init(jax.random.key(2), params, lanes=LANES)
one, _ = gradient(params, state, xs)

mesh = Mesh(np.array(jax.devices("cpu")[:2]), ("lanes",))
# The hidden state and the past have the lanes in front; what has none is on both devices.
by_lanes, everywhere = NamedSharding(mesh, PartitionSpec("lanes")), NamedSharding(mesh, PartitionSpec())


def place(leaf):
    """Half of the lanes on each device."""
    has_lanes = leaf.ndim > 0 and leaf.shape[0] == LANES
    return jax.device_put(leaf, by_lanes if has_lanes else everywhere)


two, state = gradient(
    jax.device_put(params, everywhere),
    jax.tree.map(place, state),
    jax.device_put(xs, NamedSharding(mesh, PartitionSpec(None, "lanes"))),
)
worst = max(
    float(jnp.abs(a - b).max()) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
)
print(f"hidden state on {len(state.hidden.sharding.device_set)} devices; gradients differ by {worst:.1e}")
