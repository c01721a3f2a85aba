"""T-maze: a sign at the entrance of a corridor says where to turn at its end."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from foretrace._checks import check_positive_int
from foretrace.rl.environments._environment import Discrete, Environment, EnvironmentSpec, Outcome

_LEFT, _CORRIDOR, _JUNCTION = 0, 2, 3  # places in the observation; right is 1
_FORWARD = 0  # then left and right


class MazeState(NamedTuple):
    """Where the agent is, 0 .. length, how many steps it took, and the side that is right, 0 or 1."""

    place: Int[Array, ""]
    time: Int[Array, ""]
    side: Int[Array, ""]


def t_maze(length: int = 20) -> Environment:
    """Walk down a corridor, and turn at its end to the side that a sign at its entrance named.

    The observation is one of [sign left, sign right, corridor, junction]; the sign is seen at the entrance
    alone, the junction is `length` steps forward. A turn at the junction ends the episode, with 4 if it is
    right and -0.4 if it is wrong. Any other step costs 0.1, and moves only forward and within the corridor.
    After 2 `length` steps the episode is cut off.

    Args:
        length: steps from the entrance to the junction.

    Returns:
        The environment, with three actions: forward, left, right.

    Raises:
        TypeError, ValueError: `length` is not an int >= 1.

    Source:
        Bakker, Reinforcement learning with long short-term memory, NeurIPS 2001; rewards and limit of Yi &
        Wang, 2026.
    """
    check_positive_int("length", length, "10 to 40 are usual")

    def observe(state):
        corridor = jnp.where(state.place == length, _JUNCTION, _CORRIDOR)
        return jax.nn.one_hot(jnp.where(state.place == 0, _LEFT + state.side, corridor), 4)

    def reset(key):
        side = jax.random.bernoulli(key).astype(jnp.int32)
        state = MazeState(jnp.int32(0), jnp.int32(0), side)
        return state, observe(state)

    def step(state: MazeState, action: Any) -> tuple[MazeState, Outcome]:
        forward = jnp.equal(action, _FORWARD)
        turned = (state.place == length) & ~forward
        earned = jnp.where(action - 1 == state.side, 4.0, -0.4)
        place = jnp.minimum(state.place + forward.astype(jnp.int32), length)
        after = MazeState(place, state.time + 1, state.side)
        late = (after.time == 2 * length) & ~turned
        return after, Outcome(observe(after), jnp.where(turned, earned, -0.1), turned, late)

    def succeeded(outcome: Outcome) -> Bool[Array, ""]:
        return outcome.reward > 0

    return Environment(
        reset, step, 4, Discrete(3), discount=0.99, succeeded=succeeded, best=4 - 0.1 * length
    )


SPEC = EnvironmentSpec(
    "t_maze",
    t_maze,
    "t_maze: turn at the end of a corridor to the side that a sign at its entrance named.",
    examples=("", "--length 20 --learner low_rank --cell gru --steps 1000000 --out runs/maze"),
)
