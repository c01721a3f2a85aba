"""Worlds of others, known by their structure alone: those like gymnax's, and those like Gymnasium's."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._checks import UserError, UserTypeError
from foretrace.rl.environments import Continuous, Discrete, Environment, Outcome


class GymnaxState(NamedTuple):
    """Their state, and the key for the next step."""

    inner: Any
    key: Any


class Played(NamedTuple):
    """A world of Gymnasium, for an agent in a loop.

    Attributes:
        observations: length of an observation.
        actions: `Discrete(n)` or `Continuous(n)`.
        observe: `(observation) -> vector` of float32.
        act: `(action) -> action` as they take it.
    """

    observations: int
    actions: Discrete | Continuous
    observe: Callable[[Any], np.ndarray]
    act: Callable[[Any], Any]


def from_gymnax(env: Any, params: Any = None, *, discount: float = 0.99) -> Environment:
    """An environment from an object like those of gymnax.

    Its `step_env(key, state, action, params)` may give five values, observation, state, reward, done, info,
    or six, with terminated and truncated in the place of done; done counts as terminated. Neither resets
    itself, unlike `step`. Observations are flattened.

    Args:
        env: has `reset_env`, `step_env`, `observation_space` and `action_space`.
        params: its parameters; `env.default_params` unless given.
        discount: gamma that is usual there.

    Returns:
        The environment.

    Raises:
        UserError: a function is missing, or a space is not supported.
    """
    for name in ("reset_env", "step_env", "observation_space", "action_space"):
        if not hasattr(env, name):
            raise UserTypeError(
                f"env must have {name}; got {type(env).__name__} without it; give an environment like "
                "gymnax's, or write an Environment."
            )
    params = getattr(env, "default_params", None) if params is None else params
    observations, to_vector = _observation_of(env.observation_space(params))
    actions, to_action = _action_of(env.action_space(params))

    def vector(observation):
        return to_vector(jnp, observation).astype(jnp.float32)

    def reset(key):
        own, key = jax.random.split(key)
        observation, inner = env.reset_env(own, params)
        return GymnaxState(inner, key), vector(observation)

    def step(state, action):
        own, key = jax.random.split(state.key)
        observation, inner, reward, *ends, _ = env.step_env(
            own, state.inner, to_action(jnp, action), params
        )
        terminated, truncated = ends if len(ends) == 2 else (ends[0], False)
        outcome = Outcome(
            vector(observation),
            jnp.asarray(reward, jnp.float32),
            jnp.asarray(terminated, bool),
            jnp.asarray(truncated, bool),
        )
        return GymnaxState(inner, key), outcome

    return Environment(reset, step, observations, actions, discount)


def from_gymnasium(env: Any) -> Played:
    """What an agent has to know of an object like `gymnasium.Env`.

    Args:
        env: has `observation_space` and `action_space`. Observations may be boxes, which are flattened, or
            symbols, which become one-hot vectors; actions symbols, or boxes, to which they are clipped.

    Returns:
        The sizes, for an agent, and two functions between its numbers and theirs.

    Raises:
        UserError: a space is not supported.

    Example:
        >>> import jax, foretrace as ft, gymnasium
        >>> from foretrace import rl
        >>> env = gymnasium.make("CartPole-v1")
        >>> world = rl.from_gymnasium(env)
        >>> body = rl.Body(lambda inputs: ft.cells.gru(hidden=4, inputs=inputs), ft.rtrl)
        >>> agent = rl.stream_ac(world, body)
        >>> state, act = agent.init(jax.random.key(0)), rl.jit_act(agent)
        >>> observation, _ = env.reset(seed=0)
        >>> state, action = act(state, world.observe(observation), 0.0, False, False, True)
        >>> observation, reward, terminated, truncated, _ = env.step(world.act(action))
        >>> state, action = act(state, world.observe(observation), reward, terminated, truncated, False)
    """
    for name in ("observation_space", "action_space"):
        if not hasattr(env, name):
            raise UserTypeError(
                f"env must have {name}; got {type(env).__name__} without it; make one by gymnasium.make."
            )
    observations, to_vector = _observation_of(env.observation_space)
    actions, to_action = _action_of(env.action_space)

    def act(action):
        taken = to_action(np, np.asarray(action))
        return int(taken) if isinstance(actions, Discrete) else taken

    return Played(
        observations,
        actions,
        lambda observation: to_vector(np, observation).astype(np.float32, copy=False),
        act,
    )


def _observation_of(space: Any) -> tuple[int, Callable[[Any, Any], Any]]:
    """Length of an observation, and `(numpy or jax.numpy, observation) -> vector`."""
    if hasattr(space, "n"):
        first = getattr(space, "start", 0)
        return int(space.n), lambda xp, symbol: xp.arange(space.n) == symbol - first
    if getattr(space, "shape", None) is not None and not hasattr(space, "nvec"):
        return int(np.prod(space.shape)), lambda xp, box: xp.asarray(box).ravel()
    raise UserError(
        f"observation_space must be a box or discrete; got {space}; wrap the environment so that it "
        "gives a vector."
    )


def _action_of(space: Any) -> tuple[Discrete | Continuous, Callable[[Any, Any], Any]]:
    """The space of actions, and `(numpy or jax.numpy, action) -> action` as they take it."""
    if hasattr(space, "n") and np.ndim(space.n) == 0:
        first = getattr(space, "start", 0)
        return Discrete(int(space.n)), lambda xp, action: action + first
    if hasattr(space, "low") and len(space.shape) == 1:
        return Continuous(space.shape[0]), lambda xp, action: xp.clip(
            action, xp.asarray(space.low), xp.asarray(space.high)
        )
    raise UserError(
        f"action_space must be discrete, or a box of one axis; got {space}; wrap the environment so that "
        "it takes one."
    )
