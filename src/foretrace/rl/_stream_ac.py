"""Stream AC(lambda): an actor and a critic that both learn at every step."""

from typing import Any

import jax
import jax.numpy as jnp

from foretrace._checks import check_number
from foretrace.rl._agent import Agent, Learned, Parts, World, assemble, fade, follow, network_of, senses_of
from foretrace.rl._network import Body
from foretrace.rl._policy import policy_of
from foretrace.rl._steps import StepRule, obgd


def stream_ac(
    world: World,
    body: Body,
    *,
    discount: float = 0.99,
    trace_decay: float = 0.8,
    value_rule: StepRule | None = None,
    policy_rule: StepRule | None = None,
    entropy: float = 0.01,
    scale_observations: bool = True,
    scale_rewards: bool = True,
) -> Agent:
    """Stream AC(lambda) with two recurrent networks, one for the policy and one for the value.

        error = r + discount (1 - terminated) v(o') - v(o)                              (1)
        z_v <- discount trace_decay z_v + grad v(o)                                     (2)
        z_p <- discount trace_decay z_p + grad [log p(a | o) + entropy sign(error) H(p)]   (3)
        params <- params + rule(z, error), for each network                               (4)

    with r and o scaled by their statistics. Both networks see the last action and reward too. An episode
    that is cut off keeps its bootstrap in (1); only its end by termination has none.

    Args:
        world: observations and actions; an `Environment`, or `Spaces`.
        body: the parts of both networks.
        discount: gamma.
        trace_decay: lambda.
        value_rule: step rule of the value; `obgd(kappa=2)` unless given.
        policy_rule: step rule of the policy; `obgd(kappa=3)` unless given.
        entropy: weight of the policy's entropy, tau.
        scale_observations: whether observations are scaled by their statistics.
        scale_rewards: whether rewards are scaled by those of their discounted sums.

    Returns:
        The agent.

    Raises:
        TypeError, ValueError: a number is out of range, the actions are not supported, or the cell does
            not fit.

    Source:
        Elsayed, Vasan, Mahmood, Streaming deep reinforcement learning finally works, 2024, algorithm 4;
        with a memory: Farr, Reddi, D'Eramo, Peters, arXiv 2605.24709, 2026. Theirs treats a cut as an end.
    """
    sense = senses_of(world, discount, trace_decay, scale_observations, scale_rewards)
    check_number("entropy", entropy, ">= 0", "0.01 is usual")
    policy = policy_of(world.actions)
    nets = {
        "policy": network_of(body, world, policy, policy.outputs),
        "value": network_of(body, world, policy, 1),
    }
    rules = {"policy": policy_rule or obgd(kappa=3.0), "value": value_rule or obgd(kappa=2.0)}
    dtype = nets["value"].dtype

    def learn(state: Any, x: Any, reward: Any, terminated: Any) -> tuple[Learned, Any]:
        params, memory = state.learned.params, state.memory
        value = nets["value"].output(params["value"], memory["value"])[0]
        ahead = nets["value"].peek(params["value"], memory["value"], x)[0]
        error = reward + discount * jnp.where(terminated, 0, ahead) - value  # (1)

        def wanted(outputs):
            return policy.log_prob(outputs, state.action) + entropy * jnp.sign(error) * policy.entropy(
                outputs
            )

        outputs = nets["policy"].output(params["policy"], memory["policy"])
        cotangents = {"policy": jax.grad(wanted)(outputs), "value": jnp.ones(1, dtype)}
        new, traces, slots = {}, {}, {}
        for name, net in nets.items():
            gradient = net.grad(params[name], memory[name], cotangents[name])
            traces[name] = fade(state.learned.traces[name], gradient, discount * trace_decay)  # (2), (3)
            new[name], slots[name] = follow(  # (4)
                rules[name], gradient, traces[name], error, state.learned.rules[name], params[name]
            )
        return Learned(new, traces, slots, ()), error

    def choose(key, state, outputs):
        return (), policy.sample(key, outputs["policy"])

    parts = Parts(nets, rules, learn, choose, policy.none(dtype), lambda a: policy.vector(a, dtype))
    return assemble(parts, sense)
