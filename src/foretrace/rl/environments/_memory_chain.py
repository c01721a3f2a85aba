"""Memory chain: one bit, to be said again after a walk without any other event."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from foretrace._checks import check_positive_int
from foretrace.rl.environments._environment import Discrete, Environment, EnvironmentSpec, Outcome


class ChainState(NamedTuple):
    """The time t, 0 .. length + 1, and the bit."""

    time: Int[Array, ""]
    context: Int[Array, ""]


def memory_chain(length: int = 16) -> Environment:
    """Name at the end the bit that was shown at the start, `length` steps ago.

    At time t the observation is [1 - t / length, 1 if t = length - 1 else 0, c if t = 0 else 0] with the
    bit c as -1 or 1. A step shows the observation of the time before it moves on, so that the bit is seen
    twice. Rewards are 0, and 1 or -1 at the last of length + 1 steps.

    Args:
        length: steps over which the bit has to be remembered.

    Returns:
        The environment, with two actions.

    Raises:
        TypeError, ValueError: `length` is not an int >= 1.

    Source:
        Osband et al., Behaviour suite for reinforcement learning, ICLR 2020, memory_len, with one bit; the
        query, always the same, is shown as 1.
    """
    check_positive_int("length", length, "16 is usual")

    def observe(state):
        bit = (2 * state.context - 1).astype(jnp.float32)
        return jnp.stack(
            [
                1 - state.time.astype(jnp.float32) / length,
                (state.time == length - 1).astype(jnp.float32),
                jnp.where(state.time == 0, bit, 0.0),
            ]
        )

    def reset(key):
        state = ChainState(jnp.int32(0), jax.random.bernoulli(key).astype(jnp.int32))
        return state, observe(state)

    def step(state: ChainState, action: Any) -> tuple[ChainState, Outcome]:
        over = state.time == length
        reward = jnp.where(over, jnp.where(action == state.context, 1.0, -1.0), 0.0)
        after = state._replace(time=state.time + 1)
        return after, Outcome(observe(state), reward, over, jnp.zeros((), bool))

    def succeeded(outcome: Outcome) -> Bool[Array, ""]:
        return outcome.reward > 0

    return Environment(reset, step, 3, Discrete(2), discount=0.999, succeeded=succeeded, best=1.0)


SPEC = EnvironmentSpec(
    "memory_chain",
    memory_chain,
    "memory_chain: say at the end the bit that was shown at the start, `length` steps ago.",
    # A cue of one step in hundreds has a tiny variance: divided by it, it would swamp everything.
    defaults={
        "agent": "stream_q",
        "rule": "intentional",
        "scale_observations": False,
        "steps": 500_000,
    },
    examples=("", "--length 64 --learner rtrl --cell mingru --out runs/chain"),
)
