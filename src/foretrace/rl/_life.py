"""An agent in a pure environment: many steps of both in one dispatch, and what they come to."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace._checks import check_positive_int
from foretrace.rl._agent import Agent
from foretrace.rl.environments import Environment, Outcome
from foretrace.tasks import Metric

_ENOUGH = 1e-3  # of a discounted sum; what is less of it is left out


class Tally(NamedTuple):
    """Episodes that ended, and what they brought.

    Attributes:
        episodes: their number.
        earned: the sum of their returns.
        successes: how many reached their aim.
        skipped: transitions with numbers that were not finite.
    """

    episodes: jax.Array
    earned: jax.Array
    successes: jax.Array
    skipped: jax.Array


class Life(NamedTuple):
    """All that continues from step to step.

    Attributes:
        agent: the agent's state.
        world: the environment's.
        percept: what the agent is called with next: observation, reward, terminated, truncated, first.
        earned: the return of the present episode so far.
        key: for the episodes to come.
    """

    agent: Any
    world: Any
    percept: tuple[Any, ...]
    earned: jax.Array
    key: Any


class Living(NamedTuple):
    """A life as two pure functions, with the names of its numbers.

    Attributes:
        init: `(key) -> life`.
        chunk: `(life) -> (life, loss, tally)`, many calls of the agent in one dispatch.
        steps: calls of a chunk. An episode of n steps takes n + 1: its last observation is learned from.
        loss_metric: the number that shows how well values are known.
        shown: what episodes brought; nothing where none ever ends.
        skip: whether what is not finite is left out.
    """

    init: Callable[[Any], Life]
    chunk: Callable[[Life], tuple[Life, jax.Array, Tally]]
    steps: int
    loss_metric: Metric
    shown: tuple[Metric, ...]
    skip: bool


def living(
    agent: Agent, environment: Environment, *, steps: int, discount: float, skip: bool = False
) -> Living:
    """Puts an agent into an environment.

    Args:
        agent: built for this environment.
        environment: pure functions.
        steps: calls of the agent in a chunk.
        discount: gamma, for the sums that predictions are measured by.
        skip: whether a transition with numbers that are not finite is left out, and an episode begins.

    Returns:
        The life. Its loss is the mean magnitude of the temporal-difference error; of predictions the mean
        squared distance to the discounted sum of the rewards that came, but for the end of the chunk,
        where too little of it is known.

    Raises:
        TypeError, ValueError: `steps` is not an int >= 1.
    """
    check_positive_int("chunk", steps, "leave it out for the default")
    predicts = environment.actions is None
    no, zero = jnp.zeros((), bool), jnp.zeros(())

    # Numbers of the environment's own dtype, which may be another at the start and later, become one.
    def begin(key):
        world, observation = environment.reset(key)
        return world, (jnp.asarray(observation, zero.dtype), zero, no, no, ~no)

    def init(key):
        agent_key, world_key, key = jax.random.split(key, 3)
        life = Life(agent.init(agent_key), *begin(world_key), zero, key)
        return jax.tree.map(jnp.copy, life)  # a loop may give its memory away, each array once

    def step(running, _):
        life, tally = running
        state, action = agent.act(life.agent, *life.percept)
        key, next_key, again_key = jax.random.split(life.key, 3)
        _, reward, terminated, truncated, _ = life.percept

        def go_on(key):
            world, outcome = environment.step(life.world, action)
            observation, reward = (
                jnp.asarray(a, zero.dtype) for a in (outcome.observation, outcome.reward)
            )
            succeeded = environment.succeeded(outcome) if environment.succeeded else no
            percept = observation, reward, outcome.terminated, outcome.truncated, no
            return world, percept, succeeded, _is_finite(outcome)

        def begin_anew(key):
            return *begin(key), no, ~no

        ended = terminated | truncated
        world, percept, succeeded, fine = jax.lax.cond(ended, begin_anew, go_on, next_key)
        if skip:
            world, percept = jax.lax.cond(fine, lambda key: (world, percept), begin, again_key)
        over = fine & (percept[2] | percept[3])
        earned = jnp.where(percept[4], 0, life.earned + percept[1])
        change = Tally(over, jnp.where(over, earned, 0), over & succeeded, ~fine)
        tally = jax.tree.map(lambda a, b: a + b.astype(a.dtype), tally, change)
        numbers: Any = (action, reward, ended) if predicts else jnp.abs(state.error)
        return (Life(state, world, percept, earned, key), tally), numbers

    def chunk(life):
        start = life, Tally(zero, zero, zero, zero)
        (life, tally), numbers = jax.lax.scan(step, start, length=steps)
        loss = _squared_error(numbers, discount) if predicts else jnp.mean(numbers)
        return life, loss, tally

    if predicts:
        loss, shown = Metric("squared_error", "squared error of predictions", is_loss=True), ()
    else:
        loss = Metric("td_error", "magnitude of the error", is_loss=True)
        best = (environment.best, f"best {environment.best:g}") if environment.best is not None else None
        shown = (Metric("return", "return of an episode", goal=best),)
    if environment.succeeded:
        shown = (Metric("success", "success", goal=(1.0, "always")), *shown)
    return Living(init, chunk, steps, loss, shown, skip)


def _is_finite(outcome: Outcome) -> jax.Array:
    return jnp.isfinite(outcome.reward) & jnp.all(jnp.isfinite(outcome.observation))


def _squared_error(numbers: Any, discount: float) -> jax.Array:
    """Mean of (v_t - G_t)^2, G_t = r_{t+1} + discount G_{t+1}, without the end of the stream."""

    def back(total, now):
        reward, over = now
        return reward + discount * jnp.where(over, 0, total), total

    values, rewards, ended = numbers
    rewards = rewards.astype(values.dtype)
    _, sums = jax.lax.scan(back, jnp.zeros((), values.dtype), (rewards, ended), reverse=True)
    horizon = math.ceil(math.log(_ENOUGH) / math.log(discount)) if 0 < discount < 1 else 1
    return jnp.mean((values - sums)[: max(1, len(values) - horizon)] ** 2)
