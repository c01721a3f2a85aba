"""Regression on a stream: features come, a value is said, the value comes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace.stream import _changes, _experts, _network, _scale
from foretrace.stream._changes import Plan, Seen, State
from foretrace.stream._interval import bounds, observe

_BASIS = 3


class Said(NamedTuple):
    """An answer, with what it takes to learn from its truth later.

    Attributes:
        value: the answer.
        bounds: (2,), the interval around it.
        recent: the last values when it was given.
        hidden: the hidden state that gave it.
    """

    value: jax.Array
    bounds: jax.Array
    recent: jax.Array
    hidden: Any


def parts(plan: Plan) -> _network.Parts:
    """The network's parts."""
    return _network.parts(plan.cell, plan.hidden, _BASIS + plan.features, plan.learning_rate)


def initial(plan: Plan, key: Any) -> State:
    """The state before anything was seen."""
    return _changes.initial(plan, parts(plan), key, _BASIS, plan.features)


def answer(plan: Plan, state: State, x: jax.Array, hidden: Any) -> Said:
    """What will the value of features x (n,) be? Nothing is learned, and no state advances.

    Args:
        plan: what is fixed.
        state: what was learned.
        x: features, not finite where they are unknown.
        hidden: the hidden state before them.
    """
    made = parts(plan)
    ahead = _standard(state, x)
    hidden = _network.peek(made, state.network, hidden, _input(state, state.recent, ahead))
    value, _ = _changes.mix(
        state, _changes.say(plan, state, _seen(plan, state, state.recent, hidden, ahead))
    )
    known = state.time > 0
    value = jnp.where(known, value[0], jnp.zeros_like(value[0]))
    return Said(value, value + bounds(state.interval)[0], state.recent, hidden)


def learn(
    plan: Plan, state: State, x: jax.Array, y: jax.Array, recent: jax.Array
) -> tuple[State, jax.Array]:
    """The state after the value y of features x came, and what would have been said.

    Args:
        plan: what is fixed.
        state: what was learned.
        x: features (n,), not finite where they are unknown.
        y: the value, not finite if it is unknown: then only the hidden state advances, and the value is
            taken to be where it was.
        recent: the last values when the answer was given, `state.recent` if no time has passed.
    """
    made = parts(plan)
    ahead = _standard(state, x)
    net = _network.step(made, state.network, _input(state, recent, ahead))
    given = _seen(plan, state, recent, net.learner.hidden, ahead)
    said = _changes.say(plan, state, given)
    mixed, weights = _changes.mix(state, said)
    known = state.time > 0
    truth = jnp.where(known, y, jnp.nan)[None]
    state = state._replace(network=net)
    if plan.learning:
        state = state._replace(
            trust=_experts.judge(state.trust, said, weights, truth, state.change),
            interval=observe(state.interval, truth - mixed, plan.coverage),
            inputs=_scale.seen(state.inputs, x),
        )
        state = _changes.learn(plan, made, state, given, truth, known.astype(x.dtype))
    state = _changes.push(plan, state, y, state.recent[0])
    return state, jnp.where(known, mixed[0], jnp.zeros_like(y))


def _standard(state: State, x: jax.Array) -> jax.Array:
    """The features in units of order 1, (1, n); they count as seen, learned from or not."""
    return _scale.standard(_scale.seen(state.inputs, x), x)[None]


def _input(state: State, recent: jax.Array, ahead: jax.Array) -> jax.Array:
    return jnp.concatenate([_changes.basis(state, recent), ahead[0]])


def _seen(plan: Plan, state: State, recent: jax.Array, hidden: Any, ahead: jax.Array) -> Seen:
    season = recent[plan.period - 1 : plan.period] if plan.period else recent[:0]
    if plan.period:
        ahead = jnp.concatenate([_changes.seasonal(state, season, recent[0])[:, None], ahead], axis=1)
    return Seen(
        hidden, _changes.basis(state, recent), _changes.lags(plan, state, recent), ahead, recent[0], season
    )
