"""TD(lambda): what is to come, predicted from a stream in which there is nothing to do."""

from typing import Any

import jax.numpy as jnp

from foretrace._checks import check_kind
from foretrace.rl._agent import Agent, Learned, Parts, World, assemble, fade, follow, senses_of
from foretrace.rl._network import Body, network
from foretrace.rl._steps import StepRule, obgd


def td(
    world: World,
    body: Body,
    *,
    discount: float = 0.99,
    trace_decay: float = 0.9,
    rule: StepRule | None = None,
    scale_observations: bool = True,
    scale_rewards: bool = False,
) -> Agent:
    """TD(lambda) on a recurrent network: the discounted sum of rewards to come, at every step.

        error = r + discount (1 - terminated) v(o') - v(o)                              (1)
        z <- discount trace_decay z + grad v(o)                                         (2)
        params <- params + rule(z, error)                                               (3)

    v(o') is looked up with the parameters before the step, and computed anew after it. `grad` is the
    learner's, through the whole past; z is linear in it, so an unbiased learner has an unbiased trace as
    long as the parameters do not change.

    Args:
        world: its observations; an `Environment`, or `Spaces`.
        body: the network's parts.
        discount: gamma.
        trace_decay: lambda.
        rule: the step rule; `obgd()` unless given.
        scale_observations: whether observations are scaled by their statistics.
        scale_rewards: whether rewards are; predictions are then in that scale.

    Returns:
        An agent whose `act` gives the prediction in the place of an action.

    Raises:
        TypeError, ValueError: a number is out of range, or the cell does not fit.

    Source:
        Sutton, Machine Learning 3, 1988; as a stream: Elsayed, Vasan, Mahmood, 2024.
    """
    sense = senses_of(world, discount, trace_decay, scale_observations, scale_rewards)
    check_kind("body", body, Body, "make one with Body(cell, learner)")
    net, rule = network(body, world.observations, 0, 1), rule or obgd()

    def learn(state: Any, x: Any, reward: Any, terminated: Any) -> tuple[Learned, Any]:
        (params,), (memory,) = state.learned.params.values(), state.memory.values()
        value, ahead = net.output(params, memory)[0], net.peek(params, memory, x)[0]
        error = reward + discount * jnp.where(terminated, 0, ahead) - value  # (1)
        gradient = net.grad(params, memory, jnp.ones(1, net.dtype))
        trace = fade(state.learned.traces["value"], gradient, discount * trace_decay)  # (2)
        params, slots = follow(rule, gradient, trace, error, state.learned.rules["value"], params)  # (3)
        return Learned({"value": params}, {"value": trace}, {"value": slots}, ()), error

    def choose(key, state, outputs):
        return (), outputs["value"][0]

    none = jnp.zeros((), net.dtype)
    return assemble(Parts({"value": net}, {"value": rule}, learn, choose, none, None), sense)
