"""An agent: one function that learns from what the last action led to, and acts again."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from foretrace._checks import UserError, check_kind, check_number
from foretrace._xla import in_one_kernel
from foretrace.rl._network import Body, Network, network
from foretrace.rl._policy import Policy
from foretrace.rl._senses import Senses, senses
from foretrace.rl._steps import StepRule


class Spaces(NamedTuple):
    """What an agent has to know of its world; an `Environment` tells it too.

    Attributes:
        observations: length of an observation.
        actions: `Discrete(n)`, `Continuous(n)`, or None where there are none.
    """

    observations: int
    actions: Any


@runtime_checkable
class World(Protocol):
    """Anything with the two attributes of `Spaces`."""

    @property
    def observations(self) -> int:
        """Length of an observation."""
        ...

    @property
    def actions(self) -> Any:
        """The space of actions."""
        ...


class Learned(NamedTuple):
    """What learning changes, each with an entry per network.

    Attributes:
        params: parameters.
        traces: eligibility traces, shaped like the parameters.
        rules: states of the step rules.
        extra: what else the agent keeps.
    """

    params: dict[str, Any]
    traces: dict[str, Any]
    rules: dict[str, Any]
    extra: Any


class AgentState(NamedTuple):
    """All that an agent needs to go on bit for bit.

    Attributes:
        learned: parameters, traces and step rules.
        memory: what each network remembers: hidden state and influence.
        senses: statistics of observations and rewards.
        action: the last one; of a prediction the value.
        error: the last temporal-difference error, of scaled rewards.
        steps: calls so far.
        key: PRNG key.
    """

    learned: Learned
    memory: dict[str, Any]
    senses: Any
    action: Any
    error: jax.Array
    steps: jax.Array
    key: Any


class Agent(NamedTuple):
    """An agent as two pure functions: in a loop of one jitted call per step, or in `scan` and `vmap`.

    Attributes:
        init: `(key) -> state`.
        act: `(state, observation, reward, terminated, truncated, first) -> (state, action)`. Learns from
            the transition that ends with this observation, then acts on it. `reward`, `terminated` and
            `truncated` are what the last action led to; they do not matter where `first` is true, at the
            first observation of an episode. The last observation of an episode is given too, with `first`
            false; the action that comes back is then of no use.
        networks: by name; what `streams_of` notes.
    """

    init: Callable[[Any], AgentState]
    act: Callable[..., tuple[AgentState, Any]]
    networks: dict[str, Network] = {}  # noqa: RUF012


def jit_act(agent: Agent) -> Callable[..., tuple[AgentState, Any]]:
    """`agent.act`, compiled for a loop that calls it step by step; the state given to it is used up.

    On a CPU the operations of a small agent become one native function (jaxlib 0.12 or later), in place of
    some hundred that threads hand to each other; `foretrace bench agent-gru-16` times a call.

    Example:
        >>> import jax, foretrace as ft
        >>> from foretrace import rl
        >>> world = rl.Spaces(2, rl.environments.Discrete(2))
        >>> agent = rl.td(world, rl.Body(lambda inputs: ft.cells.gru(hidden=4, inputs=inputs), ft.rtrl))
        >>> state, act = agent.init(jax.random.key(0)), rl.jit_act(agent)
        >>> state, value = act(state, [0.0, 1.0], 0.0, False, False, True)
    """
    return jax.jit(in_one_kernel(agent.act), donate_argnums=0)


class Parts(NamedTuple):
    """What tells one agent from another.

    Attributes:
        networks: by name.
        rules: a step rule for each network that learns by one.
        learn: `(state, x, reward, terminated) -> (learned, error)`, from the state before the transition
            and the input that it led to; parameters have not changed since that state was reached.
        choose: `(key, state, outputs) -> (extra, action)`, from the outputs of all networks.
        none: the action before there was any.
        vector: `(action) -> vector` for the input, or None where inputs are observations alone.
        extra: at the start of an episode, what else the agent keeps.
    """

    networks: dict[str, Network]
    rules: dict[str, StepRule]
    learn: Callable[..., tuple[Learned, jax.Array]]
    choose: Callable[..., tuple[Any, Any]]
    none: Any
    vector: Callable[[Any], jax.Array] | None
    extra: Any = ()


def assemble(parts: Parts, sense: Senses) -> Agent:
    """The loop that all agents share, around what tells them apart."""
    networks = parts.networks
    dtype = next(iter(networks.values())).dtype

    def init(key):
        own, *keys = jax.random.split(key, 1 + 2 * len(networks))
        params = {name: net.init(k) for (name, net), k in zip(networks.items(), keys[::2], strict=True)}
        memory = {
            name: net.begin(k, params[name])
            for (name, net), k in zip(networks.items(), keys[1::2], strict=True)
        }
        rules = {name: rule.init(params[name]) for name, rule in parts.rules.items()}
        traces = jax.tree.map(jnp.zeros_like, params)
        extra, none = jax.tree.map(jnp.asarray, (parts.extra, parts.none))
        learned = Learned(params, traces, rules, extra)
        zero = jnp.zeros((), dtype)
        state = AgentState(learned, memory, sense.init(dtype), none, zero, jnp.zeros((), int), own)
        return jax.tree.map(jnp.copy, state)  # a loop may give its memory away, each array once

    def act(state, observation, reward, terminated, truncated, first):
        observation, reward = jnp.asarray(observation, dtype), jnp.asarray(reward, dtype)
        if observation.shape != (sense.observations,):
            raise UserError(
                f"observation must have shape {(sense.observations,)} at every step; got "
                f"{observation.shape}; flatten it, and build the agent for that many numbers."
            )
        statistics, percept, reward = sense.perceive(state.senses, observation, reward, first)
        x = percept
        if parts.vector:
            action = jnp.where(first, 0, parts.vector(state.action))
            x = jnp.concatenate([percept, action, reward[None]])
        learned, error = parts.learn(state, x, reward, jnp.asarray(terminated, bool))
        anew = state.learned._replace(
            traces=jax.tree.map(jnp.zeros_like, learned.traces),
            extra=jax.tree.map(jnp.asarray, parts.extra),
        )
        learned = jax.tree.map(lambda old, new: jnp.where(first, old, new), anew, learned)
        memory, outputs = {}, {}
        for name, net in networks.items():
            params = learned.params[name]
            memory[name] = net.step(params, state.memory[name], x, jnp.asarray(first, bool))
            outputs[name] = net.output(params, memory[name])
        key, own = jax.random.split(state.key)
        state = AgentState(
            learned, memory, statistics, state.action, jnp.where(first, 0, error), state.steps + 1, own
        )
        extra, action = parts.choose(key, state, outputs)
        return state._replace(learned=learned._replace(extra=extra), action=action), action

    return Agent(init, act, networks)


def follow(
    rule: StepRule, gradient: Any, trace: Any, error: Any, slots: Any, params: Any
) -> tuple[Any, Any]:
    """Parameters after one step along a trace, and the state of the rule."""
    change, slots = rule.update(gradient, trace, error, slots)
    return jax.tree.map(jnp.add, params, change), slots


def fade(trace: Any, gradient: Any, fading: float) -> Any:
    """The trace z one step later: fading z + gradient."""
    return jax.tree.map(lambda z, g: fading * z + g, trace, gradient)


def senses_of(
    world: World, discount: float, trace_decay: float, scale_observations: bool, scale_rewards: bool
) -> Senses:
    """The senses of an agent, its numbers checked.

    Raises:
        TypeError, ValueError: a number is out of range.
    """
    for name, value in {"discount": discount, "trace_decay": trace_decay}.items():
        check_number(name, value, ">= 0", "give one from 0 to 1")
        if value > 1:
            raise UserError(f"{name} must be a number from 0 to 1; got {value}; 0.99 and 0.8 are usual.")
    return senses(
        world.observations,
        discount=discount,
        scale_observations=scale_observations,
        scale_rewards=scale_rewards,
    )


def network_of(body: Body, world: World, policy: Policy, outputs: int) -> Network:
    """A network that sees observation, last action and reward."""
    check_kind("body", body, Body, "make one with Body(cell, learner)")
    return network(body, world.observations, policy.size + 1, outputs)
