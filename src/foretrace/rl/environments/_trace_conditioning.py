"""Trace conditioning: a signal now announces an event later, among signals that announce nothing."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from foretrace._checks import check_positive_int
from foretrace.rl.environments._environment import Environment, EnvironmentSpec, Outcome

_SIGNAL, _EVENT = 4, 2  # steps for which each is on
_PAUSE = (80, 120)  # steps from the start of the event to the next signal


class ConditioningState(NamedTuple):
    """Steps since the signal began, from there to event and next signal; those that distractors stay on."""

    since: Int[Array, ""]
    event: Int[Array, ""]
    end: Int[Array, ""]
    left: Int[Array, " distractors"]
    key: Any


def trace_conditioning(isi: int = 20, distractors: int = 10) -> Environment:
    """Foretell an event that follows a signal after `isi` steps or so.

    The observation is [event, signal, distractors]. A signal is on for 4 steps; the event begins after
    isi - isi // 3 to isi + isi // 3 steps from the signal's start, and is on for 2; the next signal begins
    80 to 120 steps after the event did. Distractor i = 1, 2, .. starts with probability 1 / (10 i) when it
    is off, and is on for 4 steps. There is nothing to do: the reward is the event, to be predicted as its
    discounted sum.

    Args:
        isi: mean steps from signal to event.
        distractors: signals that announce nothing.

    Returns:
        The environment, an endless stream.

    Raises:
        TypeError, ValueError: a number is not an int >= 1.

    Source:
        Rafiee, Abbas, Ghiassian, Kumaraswamy, Sutton, Ludvig, White, From eye-blinks to state construction,
        Adaptive Behavior 2022.
    """
    check_positive_int("isi", isi, "10 to 80 are usual")
    check_positive_int("distractors", distractors, "10 are usual")
    rates = 1 / (10 * jnp.arange(1.0, distractors + 1))

    def observe(state):
        event = (state.since >= state.event) & (state.since < state.event + _EVENT)
        signals = jnp.stack([event, state.since < _SIGNAL])
        return jnp.concatenate([signals, state.left > 0]).astype(jnp.float32)

    def trial(key):
        event_key, pause_key = jax.random.split(key)
        event = jax.random.randint(event_key, (), isi - isi // 3, isi + isi // 3 + 1, jnp.int32)
        return event, event + jax.random.randint(pause_key, (), _PAUSE[0], _PAUSE[1] + 1, jnp.int32)

    def reset(key):
        trial_key, key = jax.random.split(key)
        left = jnp.zeros(distractors, jnp.int32)
        state = ConditioningState(jnp.int32(0), *trial(trial_key), left, key)
        return state, observe(state)

    def step(state: ConditioningState, action: Any) -> tuple[ConditioningState, Outcome]:
        trial_key, start_key, key = jax.random.split(state.key, 3)
        since = state.since + 1
        over = since == state.end
        event, end = (
            jnp.where(over, new, old) for new, old in zip(trial(trial_key), state[1:3], strict=True)
        )
        left = advance_distractors(start_key, state.left, rates, _SIGNAL)
        after = ConditioningState(jnp.where(over, 0, since), event, end, left, key)
        observation = observe(after)
        no_end = jnp.zeros((), bool)
        return after, Outcome(observation, observation[0], no_end, no_end)

    return Environment(reset, step, 2 + distractors, None, discount=1 - 1 / isi if isi > 1 else 0.0)


def advance_distractors(key: Any, left: Any, rates: Any, length: int) -> Any:
    """Steps that each distractor stays on, one step later; one that is off starts at its rate."""
    starts = (left == 0) & jax.random.bernoulli(key, rates)
    return jnp.where(starts, length, jnp.maximum(left - 1, 0))


SPEC = EnvironmentSpec(
    "trace_conditioning",
    trace_conditioning,
    "trace_conditioning: foretell an event that follows a signal after about `isi` steps.",
    defaults={"agent": "td", "steps": 2_000_000},
)
