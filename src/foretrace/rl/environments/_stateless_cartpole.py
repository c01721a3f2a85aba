"""Stateless cart-pole: balance a pole without seeing any speed."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from foretrace._checks import check_positive_int
from foretrace.rl.environments._environment import Discrete, Environment, EnvironmentSpec, Outcome

_GRAVITY, _CART, _POLE, _HALF = 9.8, 1.0, 0.1, 0.5  # m/s^2, kg, kg, half the pole's length in m
_FORCE, _SECONDS = 10.0, 0.02  # N, of a step
_FAR, _STEEP = 2.4, math.radians(12)  # where it ends: m, rad


class CartPoleState(NamedTuple):
    """Place in m, speed in m/s, angle in rad, rate of the angle in rad/s; and steps so far."""

    physics: Float[Array, " 4"]
    time: Int[Array, ""]


def stateless_cartpole(limit: int = 200) -> Environment:
    """Balance a pole on a cart, from the places of both and without their speeds.

    The observation is [place, angle]; an action pushes the cart left or right. The episode ends when the
    cart or the pole is too far from its middle, and is cut off after `limit` steps. Each step is worth
    1 / `limit`.

    Args:
        limit: most steps of an episode.

    Returns:
        The environment, with two actions.

    Raises:
        TypeError, ValueError: `limit` is not an int >= 1.

    Source:
        Barto, Sutton, Anderson, IEEE Transactions on Systems, Man, and Cybernetics 13, 1983, with the
        equations of Florian, 2007; rewards and limit of POPGym (Morad et al., ICLR 2023).
    """
    check_positive_int("limit", limit, "200 is usual")

    def observe(state):
        return state.physics[jnp.array([0, 2])]

    def reset(key):
        state = CartPoleState(jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05), jnp.int32(0))
        return state, observe(state)

    def step(state: CartPoleState, action: Any) -> tuple[CartPoleState, Outcome]:
        _, speed, angle, rate = state.physics
        cosine, sine, mass = jnp.cos(angle), jnp.sin(angle), _CART + _POLE
        push = (jnp.where(action == 1, _FORCE, -_FORCE) + _POLE * _HALF * rate**2 * sine) / mass
        turn = (_GRAVITY * sine - cosine * push) / (_HALF * (4 / 3 - _POLE * cosine**2 / mass))
        run = push - _POLE * _HALF * turn * cosine / mass
        moved = jnp.stack([speed, run, rate, turn])  # Euler: all at the speeds before the step
        after = CartPoleState(state.physics + _SECONDS * moved, state.time + 1)
        fell = (jnp.abs(after.physics[0]) > _FAR) | (jnp.abs(after.physics[2]) > _STEEP)
        late = (after.time == limit) & ~fell
        return after, Outcome(observe(after), jnp.float32(1 / limit), fell, late)

    return Environment(reset, step, 2, Discrete(2), best=1.0)


SPEC = EnvironmentSpec(
    "stateless_cartpole",
    stateless_cartpole,
    "stateless_cartpole: balance a pole on a cart without seeing any speed.",
)
