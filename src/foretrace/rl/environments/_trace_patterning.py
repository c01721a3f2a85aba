"""Trace patterning: some combinations of signals announce an event, and others do not."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from foretrace.rl.environments._environment import Environment, EnvironmentSpec, Outcome
from foretrace.rl.environments._trace_conditioning import advance_distractors

_BITS, _ON, _VALID, _DISTRACTORS = 6, 3, 10, 5
_WAIT, _PAUSE = (24, 36), (80, 120)  # steps from signal to event, and from there to the next signal
_PATTERNS = np.array(
    [[i in on for i in range(_BITS)] for on in itertools.combinations(range(_BITS), _ON)], np.float32
)


class PatterningState(NamedTuple):
    """Steps since the pattern, from there to event and next pattern, and the patterns that announce it."""

    since: Int[Array, ""]
    event: Int[Array, ""]
    end: Int[Array, ""]
    pattern: Int[Array, ""]
    valid: Bool[Array, " patterns"]
    left: Int[Array, " distractors"]
    key: Any


def trace_patterning() -> Environment:
    """Foretell an event that follows ten of twenty patterns of signals.

    The observation is [event, six signals, five distractors]. Three of the signals are on, for one step;
    ten of the twenty patterns, drawn at the reset, are followed 24 to 36 steps later by an event of one
    step. The next pattern comes 80 to 120 steps after the event, or where it would have been. Distractor
    i = 1 .. 5 is on for one step with probability 1 / (10 i). There is nothing to do: the reward is the
    event, to be predicted as its discounted sum.

    Returns:
        The environment, an endless stream.

    Source:
        Rafiee et al., Adaptive Behavior 2022, in the form of Javed et al., Scalable real-time recurrent
        learning using columnar-constructive networks, JMLR 2023. A distractor is as short as a signal here.
    """
    rates = 1 / (10 * jnp.arange(1.0, _DISTRACTORS + 1))

    def observe(state):
        event = (state.since == state.event) & state.valid[state.pattern]
        signals = jnp.where(state.since == 0, jnp.asarray(_PATTERNS)[state.pattern], 0.0)
        return jnp.concatenate([event[None], signals, state.left > 0], dtype=jnp.float32)

    def trial(key):
        event_key, pause_key, pattern_key = jax.random.split(key, 3)
        event = jax.random.randint(event_key, (), _WAIT[0], _WAIT[1] + 1, jnp.int32)
        end = event + jax.random.randint(pause_key, (), _PAUSE[0], _PAUSE[1] + 1, jnp.int32)
        return event, end, jax.random.randint(pattern_key, (), 0, len(_PATTERNS), jnp.int32)

    def reset(key):
        trial_key, valid_key, key = jax.random.split(key, 3)
        valid = jax.random.permutation(valid_key, jnp.arange(len(_PATTERNS)) < _VALID)
        left = jnp.zeros(_DISTRACTORS, jnp.int32)
        state = PatterningState(jnp.int32(0), *trial(trial_key), valid, left, key)
        return state, observe(state)

    def step(state: PatterningState, action: Any) -> tuple[PatterningState, Outcome]:
        trial_key, start_key, key = jax.random.split(state.key, 3)
        since = state.since + 1
        over = since == state.end
        drawn = zip(trial(trial_key), state[1:4], strict=True)
        event, end, pattern = (jnp.where(over, new, old) for new, old in drawn)
        left = advance_distractors(start_key, state.left, rates, 1)
        since = jnp.where(over, 0, since)
        after = PatterningState(since, event, end, pattern, state.valid, left, key)
        observation = observe(after)
        no_end = jnp.zeros((), bool)
        return after, Outcome(observation, observation[0], no_end, no_end)

    return Environment(reset, step, 1 + _BITS + _DISTRACTORS, None, discount=0.9)


SPEC = EnvironmentSpec(
    "trace_patterning",
    trace_patterning,
    "trace_patterning: foretell an event that follows ten of twenty patterns of signals.",
    defaults={"agent": "td", "steps": 2_000_000},
)
