"""K-memory chain: a new bit at every step, to be said again some steps later."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from foretrace._checks import check_positive_int
from foretrace.rl.environments._environment import Discrete, Environment, EnvironmentSpec, Outcome


class KChainState(NamedTuple):
    """The time t and the bits of the whole episode."""

    time: Int[Array, ""]
    bits: Int[Array, " steps"]


def k_memory_chain(length: int = 4) -> Environment:
    """Name at every step the bit that was shown `length` steps before.

    With K = `length` and T = 8 K the observation at time t is [the bit as -1 or 1, 1 - t / T]. From t = K
    on an action is worth 1 or -1, before it 0; the episode ends after T steps.

    Args:
        length: steps over which every bit has to be remembered.

    Returns:
        The environment, with two actions.

    Raises:
        TypeError, ValueError: `length` is not an int >= 1.

    Source:
        Farr, Reddi, D'Eramo, Peters, arXiv 2605.24709, 2026.
    """
    steps = 8 * check_positive_int("length", length, "4 is usual")

    def observe(state):
        bit = 2 * state.bits[state.time] - 1
        return jnp.stack([bit.astype(jnp.float32), 1 - state.time.astype(jnp.float32) / steps])

    def reset(key):
        # One bit more than there are steps: that of the observation after the last one.
        state = KChainState(jnp.int32(0), jax.random.bernoulli(key, shape=(steps + 1,)).astype(jnp.int32))
        return state, observe(state)

    def step(state: KChainState, action: Any) -> tuple[KChainState, Outcome]:
        wanted = state.bits[jnp.maximum(state.time - length, 0)]
        reward = jnp.where(state.time < length, 0.0, jnp.where(action == wanted, 1.0, -1.0))
        after = state._replace(time=state.time + 1)
        return after, Outcome(observe(after), reward, after.time == steps, jnp.zeros((), bool))

    return Environment(reset, step, 2, Discrete(2), best=float(steps - length))


SPEC = EnvironmentSpec(
    "k_memory_chain",
    k_memory_chain,
    "k_memory_chain: say at every step the bit that was shown `length` steps before.",
)
