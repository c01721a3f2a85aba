"""What an agent perceives: observations and rewards at a common scale, and the input made of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_EPSILON = 1e-8


class Running(NamedTuple):
    """Mean and sum of squared distances from it of all that was seen, from one prior sample of N(0, 1)."""

    mean: jax.Array
    squares: jax.Array
    number: jax.Array


def begin_running(shape: tuple[int, ...], dtype: Any) -> Running:
    """The statistics before anything was seen: one sample of mean 0 and variance 1.

    Without it a constant input, such as a zero of a one-hot vector, would be divided by nothing.
    """
    return Running(jnp.zeros(shape, dtype), jnp.ones(shape, dtype), jnp.ones((), dtype))


def observe(running: Running, x: jax.Array) -> Running:
    """The statistics with one more sample (Welford, Technometrics 4, 1962)."""
    count = running.number + 1
    mean = running.mean + (x - running.mean) / count
    return Running(mean, running.squares + (x - running.mean) * (x - mean), count)


def scale_of(running: Running) -> jax.Array:
    """The standard deviation, never zero."""
    return jnp.sqrt(running.squares / running.number + _EPSILON)


class SensesState(NamedTuple):
    """Statistics of observations and of discounted sums of rewards, and the present such sum."""

    observations: Running
    returns: Running
    sum: jax.Array


class Senses(NamedTuple):
    """From raw observations and rewards to those that an agent learns from.

    Attributes:
        init: `(dtype) -> state`.
        perceive: `(state, observation, reward, first) -> (state, observation, reward)`, both scaled. At an
            episode's first observation there is no reward, and none is counted.
        observations: length of an observation.
    """

    init: Callable[[Any], SensesState]
    perceive: Callable[..., tuple[SensesState, jax.Array, jax.Array]]
    observations: int


def senses(observations: int, *, discount: float, scale_observations: bool, scale_rewards: bool) -> Senses:
    """Scales by what was seen so far, the present sample included.

        o~ = (o - mean) / std                                                           (1)
        u <- discount u + r, from 0 at each episode's start;  r~ = r / std of all u        (2)

    Args:
        observations: length of an observation.
        discount: gamma, for u.
        scale_observations: whether (1) is done; if not, o~ = o.
        scale_rewards: whether (2) is done; if not, r~ = r.

    Source:
        Elsayed, Vasan, Mahmood, Streaming deep reinforcement learning finally works, 2024; with a prior
        sample of N(0, 1) for each statistic.
    """

    def init(dtype):
        scalar = begin_running((), dtype)
        return SensesState(begin_running((observations,), dtype), scalar, jnp.zeros((), dtype))

    def perceive(state, observation, reward, first):
        statistics = observe(state.observations, observation)
        total = jnp.where(first, 0, discount * state.sum + reward)  # (2)
        counted = observe(state.returns, total)
        returns = jax.tree.map(lambda old, new: jnp.where(first, old, new), state.returns, counted)
        if scale_observations:
            observation = (observation - statistics.mean) / scale_of(statistics)  # (1)
        if scale_rewards:
            reward = reward / scale_of(returns)
        return SensesState(statistics, returns, total), observation, jnp.where(first, 0, reward)

    return Senses(init, perceive, observations)
