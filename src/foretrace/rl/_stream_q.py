"""Stream Q(lambda): the values of actions, learned at every step."""

from typing import Any

import jax
import jax.numpy as jnp

from foretrace._checks import UserTypeError, check_number, check_positive_int
from foretrace.rl._agent import Agent, Learned, Parts, World, assemble, fade, follow, network_of, senses_of
from foretrace.rl._network import Body
from foretrace.rl._policy import Policy, discrete
from foretrace.rl._steps import StepRule, obgd
from foretrace.rl.environments import Discrete


def stream_q(
    world: World,
    body: Body,
    *,
    discount: float = 0.99,
    trace_decay: float = 0.8,
    rule: StepRule | None = None,
    explore: float = 0.01,
    explore_steps: int = 25_000,
    scale_observations: bool = True,
    scale_rewards: bool = True,
) -> Agent:
    """Stream Q(lambda) with one recurrent network, and epsilon-greedy actions.

        error = r + discount (1 - terminated) max_b q(o', b) - q(o, a)                  (1)
        z <- discount trace_decay z + grad q(o, a)                                      (2)
        params <- params + rule(z, error)                                               (3)
        z <- 0 after an action that was not greedy                                       (4)

    The influence is kept at (4): what the hidden state owes to the parameters does not depend on which
    action was the best one.

    Args:
        world: observations and discrete actions; an `Environment`, or `Spaces`.
        body: the network's parts.
        discount: gamma.
        trace_decay: lambda.
        rule: the step rule; `obgd(kappa=2)` unless given.
        explore: epsilon, the probability of a random action, in the end.
        explore_steps: steps over which it falls to that, from 1; 5 % of a run are usual.
        scale_observations: whether observations are scaled by their statistics.
        scale_rewards: whether rewards are scaled by those of their discounted sums.

    Returns:
        The agent.

    Raises:
        TypeError, ValueError: a number is out of range, the actions are not discrete, or the cell does not
            fit.

    Source:
        Elsayed, Vasan, Mahmood, Streaming deep reinforcement learning finally works, 2024, algorithm 3.
    """
    sense = senses_of(world, discount, trace_decay, scale_observations, scale_rewards)
    policy = discrete_policy(world)
    net, rule = network_of(body, world, policy, policy.outputs), rule or obgd(kappa=2.0)
    choose = greedy_or_not(explore, explore_steps, "value")

    def learn(state: Any, x: Any, reward: Any, terminated: Any) -> tuple[Learned, Any]:
        params, memory = state.learned.params["value"], state.memory["value"]
        chosen = policy.vector(state.action, net.dtype)
        ahead = jnp.max(net.peek(params, memory, x))
        error = (
            reward + discount * jnp.where(terminated, 0, ahead) - net.output(params, memory) @ chosen
        )  # (1)
        gradient = net.grad(params, memory, chosen)
        trace = fade(state.learned.traces["value"], gradient, discount * trace_decay)  # (2)
        params, slots = follow(rule, gradient, trace, error, state.learned.rules["value"], params)  # (3)
        trace = cut(trace, state.learned.extra)  # (4)
        return Learned({"value": params}, {"value": trace}, {"value": slots}, state.learned.extra), error

    none, is_stray = policy.none(net.dtype), jnp.zeros((), bool)
    parts = Parts(
        {"value": net},
        {"value": rule},
        learn,
        choose,
        none,
        lambda a: policy.vector(a, net.dtype),
        is_stray,
    )
    return assemble(parts, sense)


def discrete_policy(world: World) -> Policy:
    """The actions of an agent that values each of them.

    Raises:
        UserError: they are not discrete.
    """
    if not isinstance(world.actions, Discrete):
        raise UserTypeError(
            f"actions must be Discrete(n) for values of actions; got {world.actions!r}; use stream_ac, or "
            "td where there are none."
        )
    return discrete(world.actions.size)


def greedy_or_not(explore: float, explore_steps: int, name: str) -> Any:
    """The choice of an action, `(key, state, outputs) -> (whether it is not the greedy one, action)`."""
    check_number("explore", explore, ">= 0", "0.01 is usual")
    check_positive_int("explore_steps", explore_steps, "a twentieth of the run is usual")

    def choose(key, state, outputs):
        values = outputs[name]
        done = jnp.minimum(state.steps.astype(values.dtype) / explore_steps, 1)
        chance_key, action_key = jax.random.split(key)
        strays = jax.random.uniform(chance_key, dtype=values.dtype) < 1 - (1 - explore) * done
        best = jnp.argmax(values).astype(jnp.int32)
        other = jax.random.randint(action_key, (), 0, len(values), jnp.int32)
        action = jnp.where(strays, other, best)
        return action != best, action

    return choose


def cut(trace: Any, is_stray: Any) -> Any:
    """A trace that ends where an action was not the greedy one."""
    return jax.tree.map(lambda z: jnp.where(is_stray, 0, z), trace)
