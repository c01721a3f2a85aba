"""Forecasts of a stream: a value comes, the values of the next H times are said.

The network that learns is H steps behind: at every time it stands where all of its H truths have just
become known, so that each update has the whole gradient of all horizons. What is said comes from the same
network, brought up to date through the last H inputs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace.stream import _changes, _experts, _network, _scale
from foretrace.stream._changes import Plan, Seen
from foretrace.stream._interval import observe

_BASIS = 3
_HARMONICS = 2


class Stream(NamedTuple):
    """All of a forecaster that continues; H is the horizon.

    Attributes:
        state: what was learned.
        pending: (H, n), inputs that the network has not yet learned from, newest first.
        features: (H + 1, features), the last features as they came, newest first.
        said: (H, H, experts), what was said, newest first; then the horizon.
        weights: (H, H, experts), and with which weights.
        forecast: (H,), the newest forecast.
    """

    state: _changes.State
    pending: jax.Array
    features: jax.Array
    said: jax.Array
    weights: jax.Array
    forecast: jax.Array


def parts(plan: Plan) -> _network.Parts:
    """The network's parts."""
    return _network.parts(plan.cell, plan.hidden, _inputs(plan), plan.learning_rate)


def initial(plan: Plan, key: Any) -> Stream:
    """The state before anything was seen."""
    horizon = plan.horizon
    state = _changes.initial(plan, parts(plan), key, _BASIS, _inputs(plan) - _BASIS + (plan.period > 0))
    said = jnp.zeros((horizon, horizon, len(_changes.experts(plan))))
    return Stream(
        state=state,
        pending=jnp.zeros((horizon, _inputs(plan))),
        features=jnp.zeros((horizon + 1, plan.features)),
        said=said,
        weights=jnp.zeros_like(said),
        forecast=jnp.zeros(horizon),
    )


def learn(plan: Plan, stream: Stream, x: jax.Array, y: jax.Array) -> tuple[Stream, jax.Array]:
    """The state after value y with features x came, and what had been said of it at each horizon, (H,).

    Args:
        plan: what is fixed.
        stream: what was learned.
        x: features (n,), not finite where they are unknown.
        y: the value, not finite if it is unknown: then what was said one step ahead stands in for it, and
            nothing is learned from it.
    """
    made, horizon, state = parts(plan), plan.horizon, stream.state
    steps = jnp.arange(horizon)
    said, weights = stream.said[steps, steps], stream.weights[steps, steps]
    before = jnp.sum(said * weights, axis=1)
    truth = jnp.where(steps < state.time, y, jnp.nan)
    learned = state._replace(
        trust=_experts.judge(state.trust, said, weights, truth, state.change),
        interval=observe(state.interval, truth - before, plan.coverage),
        inputs=_scale.seen(state.inputs, x),
    )
    state = _changes.push(plan, learned if plan.learning else state, y, stream.forecast[0])
    features = jnp.concatenate([x[None], stream.features[:-1]])
    # Where the network stands that learns, all H values after it are known by now.
    state = state._replace(network=_network.step(made, state.network, stream.pending[-1]))
    recent = state.recent[horizon:]
    ahead = _ahead(plan, state, features[:horizon][::-1], state.time - horizon, recent)
    given = _given(plan, state, state.network.learner.hidden, recent, ahead)
    whole = ((state.time > horizon) & jnp.isfinite(y)).astype(y.dtype)
    if plan.learning:
        state = _changes.learn(plan, made, state, given, state.recent[:horizon][::-1], whole)
    new = jnp.concatenate(
        [_changes.basis(state, state.recent), _outside(plan, state, x[None], state.time)[0]]
    )
    pending = jnp.concatenate([new[None], stream.pending[:-1]])
    stream = stream._replace(state=state, pending=pending, features=features)
    said, weights, forecast = _say(plan, stream, jnp.tile(x, (horizon, 1)))
    return stream._replace(
        said=jnp.concatenate([said[None], stream.said[:-1]]),
        weights=jnp.concatenate([weights[None], stream.weights[:-1]]),
        forecast=forecast,
    ), before


def forecast(plan: Plan, stream: Stream, xs: jax.Array) -> jax.Array:
    """What will the next H values be, (H,), with features (H, n) ahead? Nothing is learned."""
    return _say(plan, stream, xs)[2]


def _say(plan: Plan, stream: Stream, xs: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    made, state = parts(plan), stream.state

    def one(hidden, x):
        return _network.peek(made, state.network, hidden, x), None

    hidden, _ = jax.lax.scan(one, state.network.learner.hidden, stream.pending[::-1])
    ahead = _ahead(plan, state, xs, state.time, state.recent)
    said = _changes.say(plan, state, _given(plan, state, hidden, state.recent, ahead))
    mixed, weights = _changes.mix(state, said)
    return said, weights, mixed


def _inputs(plan: Plan) -> int:
    return _BASIS + 2 * _HARMONICS * (plan.period > 0) + plan.features


def _ahead(
    plan: Plan, state: _changes.State, xs: jax.Array, count: jax.Array, recent: jax.Array
) -> jax.Array:
    """What is known of the H times after `count` values, the last of which are `recent`, (H, n)."""
    times = count + jnp.arange(1, plan.horizon + 1)
    outside = jax.vmap(lambda x, time: _outside(plan, state, x[None], time)[0])(xs, times)
    if not plan.period:
        return outside
    season = _changes.seasonal(state, _season(plan, recent), recent[0])
    return jnp.concatenate([season[:, None], outside], axis=1)


def _outside(plan: Plan, state: _changes.State, x: jax.Array, count: jax.Array) -> jax.Array:
    """The clock and the features in units of order 1, (1, n)."""
    found = _scale.standard(state.inputs, x[0])
    if not plan.period:
        return found[None]
    # The remainder first: a float would lose the place in the season after some million steps.
    phase = 2 * jnp.pi * (count % plan.period).astype(x.dtype) / plan.period
    waves = [turn(k * phase) for k in range(1, _HARMONICS + 1) for turn in (jnp.cos, jnp.sin)]
    return jnp.concatenate([jnp.stack(waves), found])[None]


def _season(plan: Plan, recent: jax.Array) -> jax.Array:
    """The values one season before each of the next H times, or as many seasons as it takes."""
    return jnp.stack([recent[plan.period - 1 - h % plan.period] for h in range(plan.horizon)])


def _given(plan: Plan, state: _changes.State, hidden: Any, recent: jax.Array, ahead: jax.Array) -> Seen:
    season = _season(plan, recent) if plan.period else recent[:0]
    return Seen(
        hidden, _changes.basis(state, recent), _changes.lags(plan, state, recent), ahead, recent[0], season
    )
