"""QRC(lambda): values of actions by gradients of the error itself, so that nothing diverges."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from foretrace._checks import check_number
from foretrace._xla import with_new_keys
from foretrace.rl._agent import Agent, Learned, Parts, World, assemble, fade, follow, network_of, senses_of
from foretrace.rl._network import Body
from foretrace.rl._steps import StepRule, by_optax
from foretrace.rl._stream_q import cut, discrete_policy, greedy_or_not


def qrc(
    world: World,
    body: Body,
    *,
    discount: float = 0.99,
    trace_decay: float = 0.8,
    rate: float = 1e-4,
    correction_rate: float = 1e-5,
    regularisation: float = 1.0,
    rule: StepRule | None = None,
    correction_rule: StepRule | None = None,
    explore: float = 0.01,
    explore_steps: int = 25_000,
    scale_observations: bool = True,
    scale_rewards: bool = True,
) -> Agent:
    """QRC(lambda): Q(lambda) with a second network h that foretells the error, each with its own memory.

        error = r + discount (1 - terminated) max_b q(o', b) - q(o, a)                      (1)
        z_q, z_h, b <- discount trace_decay (z_q, z_h, b) + (grad q, grad h, h)(o, a)         (2)
        w_h += correction_rule(error z_h - h grad h - regularisation w_h)                    (3)
        w_q += rule(error z_q - h grad q - b grad error)                                    (4)

    In (4) the error is differentiated in q(o', .) too, one step of the influence ahead. All traces are
    0 after an action that was not greedy.

    Args:
        world: observations and discrete actions; an `Environment`, or `Spaces`.
        body: the parts of both networks.
        discount: gamma.
        trace_decay: lambda.
        rate: step size of q, where it has no rule.
        correction_rate: step size of h, likewise.
        regularisation: beta.
        rule: the step rule of q, to which (4) is trace and error in one; `by_optax(optax.sgd(rate))` unless
            given.
        correction_rule: that of h, likewise with (3).
        explore: epsilon in the end.
        explore_steps: steps over which it falls to that, from 1.
        scale_observations: whether observations are scaled by their statistics.
        scale_rewards: whether rewards are scaled by those of their discounted sums.

    Returns:
        The agent.

    Raises:
        TypeError, ValueError: as for `stream_q`.

    Source:
        Elelimy et al., Deep reinforcement learning with gradient eligibility traces, arXiv 2507.09087,
        2025.
    """
    sense = senses_of(world, discount, trace_decay, scale_observations, scale_rewards)
    for name, value in {"rate": rate, "correction_rate": correction_rate}.items():
        check_number(name, value, "> 0", "leave it out for the usual one")
    check_number("regularisation", regularisation, ">= 0", "1 is usual")
    policy = discrete_policy(world)
    nets = {name: network_of(body, world, policy, policy.outputs) for name in ("value", "correction")}
    rules = {
        "value": rule or by_optax(optax.sgd(rate)),
        "correction": correction_rule or by_optax(optax.sgd(correction_rate)),
    }
    q, h = nets.values()
    stray, fading = greedy_or_not(explore, explore_steps, "value"), discount * trace_decay

    def learn(state: Any, x: Any, reward: Any, terminated: Any) -> tuple[Learned, Any]:
        w_q, w_h = (state.learned.params[name] for name in nets)
        memory_q, memory_h = (state.memory[name] for name in nets)
        is_stray, b = state.learned.extra
        chosen = policy.vector(state.action, q.dtype)
        ahead = q.step(w_q, with_new_keys(memory_q), x, jnp.zeros((), bool))
        values = q.output(w_q, ahead)
        best = policy.vector(jnp.argmax(values), q.dtype)
        goes_on = discount * jnp.where(terminated, 0, jnp.ones((), q.dtype))
        error = reward + goes_on * jnp.max(values) - q.output(w_q, memory_q) @ chosen  # (1)
        foretold = h.output(w_h, memory_h) @ chosen
        grad_q, grad_h = q.grad(w_q, memory_q, chosen), h.grad(w_h, memory_h, chosen)
        grad_ahead = q.grad(w_q, ahead, best)
        z_q, z_h = (
            fade(state.learned.traces[name], gradient, fading)  # (2)
            for name, gradient in (("value", grad_q), ("correction", grad_h))
        )
        b = fading * b + foretold

        def correct(w, z, g):
            return error * z - foretold * g - regularisation * w  # (3)

        def improve(z, g, after):
            return error * z - foretold * g - b * (goes_on * after - g)  # (4)

        gradients = {"value": grad_q, "correction": grad_h}
        directions = {
            "value": jax.tree.map(improve, z_q, grad_q, grad_ahead),
            "correction": jax.tree.map(correct, w_h, z_h, grad_h),
        }
        params, slots, one = {}, {}, jnp.ones((), q.dtype)  # the error is in the directions already
        for name, w in state.learned.params.items():
            params[name], slots[name] = follow(
                rules[name], gradients[name], directions[name], one, state.learned.rules[name], w
            )
        traces = {"value": cut(z_q, is_stray), "correction": cut(z_h, is_stray)}
        return Learned(params, traces, slots, (is_stray, cut(b, is_stray))), error

    def choose(key, state, outputs):
        is_stray, action = stray(key, state, outputs)
        return (is_stray, state.learned.extra[1]), action

    start = jnp.zeros((), bool), jnp.zeros((), q.dtype)
    vector = lambda action: policy.vector(action, q.dtype)  # noqa: E731
    return assemble(Parts(nets, rules, learn, choose, policy.none(q.dtype), vector, start), sense)
