"""Regression on a stream: features arrive, a value is predicted, the value arrives."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace.stream import (
    _experts,
    _interval,
    _least_squares,
    _model,
    _network,
    _origin,
    _scale,
    _state,
    _values,
)
from foretrace.stream._model import Regressors
from foretrace.stream._state import Config, State

_BASIS = 3


class Prediction(NamedTuple):
    """A prediction, with the context that learns from its label later.

    Attributes:
        value: the prediction, a difference from the origin.
        offsets: (2,), of the bounds of its interval from it.
        origin: at that time.
        recent: the last values at that time.
        hidden: the hidden state at that time.
    """

    value: jax.Array
    offsets: jax.Array
    origin: _origin.Origin
    recent: jax.Array
    hidden: Any


def network_parts(config: Config) -> _network.NetworkParts:
    """Functions of the network."""
    return _network.network_parts(
        config.cell, config.hidden, _BASIS + config.features, config.learning_rate
    )


def init(config: Config, key: Any) -> State:
    """The state before the first value."""
    parts = network_parts(config)
    inputs = _network.output_size(parts) + _BASIS + (config.period > 0) + config.features
    return _state.init(
        config,
        parts,
        key,
        inputs=inputs,
        linear=_least_squares.init(1, inputs + config.lags, shared=True),
        experts=_experts.init(1, len(_model.expert_names(config))),
        rows=max(config.lags, config.period) + 2,
    )


def predict(config: Config, state: State, x: jax.Array, hidden: Any) -> Prediction:
    """Predicts the value of features x; nothing is learned, and no state advances.

    Args:
        config: the configuration.
        state: the state.
        x: features, pairs (n, 2), not finite where they are unknown.
        hidden: the hidden state before them.
    """
    input_origin = _origin.start(state.input_origin, x, state.inputs.samples)
    ahead = _standard(state, _origin.difference(x, input_origin))
    inputs = _network_input(state, state.recent, ahead)
    hidden = _network.next_hidden(network_parts(config), state.network, hidden, inputs)
    regressors = _regressors(config, state, state.recent, hidden, ahead)
    value = _model.combine(state, _model.predict(config, state, regressors))
    value = jnp.where(state.time > 0, value[0], jnp.zeros_like(value[0]))
    offsets = _interval.offsets(state.interval)[0]
    return Prediction(value, offsets, state.origin, state.recent, hidden)


def learn(
    config: Config,
    state: State,
    x: jax.Array,
    y: jax.Array,
    weight: jax.Array,
    late: Prediction | None = None,
) -> tuple[State, jax.Array]:
    """Learns the value y of features x; also returns its prediction just before, and the origin, (3,).

    Args:
        config: the configuration.
        state: the state.
        x: features, pairs (n, 2), not finite where they are unknown.
        y: the value, a pair (2,), not finite if it is unknown: then only the hidden state advances, and the
            value is taken to be the last one.
        weight: of this sample beside the others; with 0 nothing is learned but the value itself.
        late: the prediction that the label belongs to, if others were made since.
    """
    parts = network_parts(config)
    state, x, y = _values.differences(state, x, y)
    recent = state.recent
    if late is not None:
        moved = _origin.between(state.origin, late.origin)
        recent, late = late.recent - moved, late._replace(value=late.value - moved[0])
    ahead = _standard(state, x)
    network = _network.step(parts, state.network, _network_input(state, recent, ahead))
    regressors = _regressors(config, state, recent, network.learner.hidden, ahead)
    predictions = _model.predict(config, state, regressors)
    combined = _model.combine(state, predictions)
    is_known = state.time > 0
    truth = jnp.where(is_known & (weight > 0), y, jnp.nan)[None]
    state = state._replace(network=network)
    if config.learning:
        state = state._replace(
            experts=_experts.update_weights(
                state.experts, predictions, combined, truth, state.change, weight
            ),
            interval=_interval.update(
                state.interval,
                truth - (combined if late is None else late.value[None]),
                config.coverage,
                _interval.offsets(state.interval) if late is None else late.offsets[None],
            ),
            inputs=_scale.update(state.inputs, x),
        )
        state = _model.fit(config, parts, state, regressors, truth, weight)
    state = _values.add_value(config, state, y, state.recent[0])
    output = jnp.concatenate([combined, *state.origin])
    return _values.follow(state)[0], jnp.where(is_known, output, 0)


def _standard(state: State, x: jax.Array) -> jax.Array:
    """The features in units of order 1, (1, n); they count for their own moments, learned or not."""
    return _scale.standard(_scale.update(state.inputs, x), x)[None]


def _network_input(state: State, recent: jax.Array, ahead: jax.Array) -> jax.Array:
    return jnp.concatenate([_values.basis(state, recent), ahead[0]])


def _regressors(
    config: Config, state: State, recent: jax.Array, hidden: Any, ahead: jax.Array
) -> Regressors:
    season = recent[config.period - 1 : config.period] if config.period else recent[:0]
    if config.period:
        distance = _values.seasonal(state, season, recent[0])
        ahead = jnp.concatenate([distance[:, None], ahead], axis=1)
    lags = _values.lags(config, state, recent)
    output = network_parts(config).cell.output(hidden)
    return Regressors(output, _values.basis(state, recent), lags, ahead, recent[0], season)
