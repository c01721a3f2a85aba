"""Forecasts of a stream: a value arrives, the values of the next H times are forecast.

The network that learns is H steps late: it stands where all of its H truths have just arrived, so that each
update has the whole gradient of all horizons. Forecasts come from the same network, advanced through the
last H inputs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace.stream import _experts, _interval, _model, _network, _origin, _scale
from foretrace.stream._model import Config, Regressors, State

_BASIS = 3
_HARMONICS = 2


class ForecastState(NamedTuple):
    """State of a forecaster; H is the horizon.

    Attributes:
        state: of the model.
        pending: (H, n), inputs that the network has not yet learned from, newest first.
        features: (H + 1, features), the last features, newest first.
        predictions: (H, H, experts), of the experts, newest first; then the horizon.
        weights: (H, H, experts), the experts' weights at that time.
        offsets: (H, H, 2), of the intervals at that time.
        forecast: (H,), the newest forecast.
    """

    state: State
    pending: jax.Array
    features: jax.Array
    predictions: jax.Array
    weights: jax.Array
    offsets: jax.Array
    forecast: jax.Array


class ForecastResult(NamedTuple):
    """Result of one value or, with a leading axis, of many.

    `pack` and `unpack` send it from the device as one vector: every array costs time at every call.

    Attributes:
        previous_forecast: (H,), of the value that arrived, made 1 to H steps before.
        forecast: (H,), of the values to come.
        lower: (H,), its lower bounds.
        upper: (H,), its upper bounds.
        tail: share of errors one step ahead that were at least as large as that of the value that arrived.
        origin: pair, (2,), from which the model's values are differences; 0 once unpacked.
    """

    previous_forecast: Any
    forecast: Any
    lower: Any
    upper: Any
    tail: Any
    origin: Any = 0

    def pack(self) -> jax.Array:
        """The fields in their order, (4 H + 3,)."""
        return jnp.concatenate([*self[:4], self.tail[None], self.origin])

    @classmethod
    def unpack(cls, packed: Any) -> "ForecastResult":
        """Inverse of `pack`, (.., 4 H + 3), in float64 and with the origin added; outside of JAX."""
        values, horizon = _origin.from_pairs(packed), packed.shape[-1] // 4
        fields = (values[..., i * horizon : (i + 1) * horizon] for i in range(4))
        return cls(*fields, tail=np.asarray(packed)[..., -3])


def network_parts(config: Config) -> _network.NetworkParts:
    """Functions of the network."""
    return _network.network_parts(config.cell, config.hidden, _inputs(config), config.learning_rate)


def init(config: Config, key: Any) -> ForecastState:
    """The state before the first value."""
    horizon, ahead = config.horizon, _inputs(config) - _BASIS + (config.period > 0)
    predictions = jnp.zeros((horizon, horizon, len(_model.expert_names(config))))
    return ForecastState(
        state=_model.init(config, network_parts(config), key, _BASIS, ahead),
        pending=jnp.zeros((horizon, _inputs(config))),
        features=jnp.zeros((horizon + 1, config.features)),
        predictions=predictions,
        weights=jnp.zeros_like(predictions),
        offsets=jnp.full((horizon, horizon, 2), jnp.inf),
        forecast=jnp.zeros(horizon),
    )


def learn(
    config: Config, stream: ForecastState, x: jax.Array, y: jax.Array
) -> tuple[ForecastState, ForecastResult]:
    """Learns the value y with features x, and forecasts the values after it.

    Args:
        config: the configuration.
        stream: the state.
        x: features, pairs (n, 2), not finite where they are unknown.
        y: the value, a pair (2,), not finite if it is unknown: then its forecast stands in for it, and
            nothing is learned from it.
    """
    parts, horizon = network_parts(config), config.horizon
    state, x, y = _model.differences(stream.state, x, y)
    steps = jnp.arange(horizon)
    predictions, weights = stream.predictions[steps, steps], stream.weights[steps, steps]
    previous = jnp.sum(predictions * weights, axis=1)
    truth = jnp.where(steps < state.time, y, jnp.nan)
    if config.learning:
        state = state._replace(
            experts=_experts.update_weights(state.experts, predictions, weights, truth, state.change),
            interval=_interval.update(
                state.interval, truth - previous, config.coverage, stream.offsets[steps, steps]
            ),
            inputs=_scale.update(state.inputs, x),
        )
    state = _model.add_value(config, state, y, stream.forecast[0])
    state, shift, input_shift = _model.follow(state)
    x = x - input_shift
    features = jnp.concatenate([x[None], stream.features[:-1] - input_shift[None]])
    # By now all H values after the place of the network that learns are known.
    state = state._replace(network=_network.step(parts, state.network, stream.pending[-1]))
    recent = state.recent[horizon:]
    ahead = _ahead(config, state, features[:horizon][::-1], state.time - horizon, recent)
    regressors = _regressors(config, state, state.network.learner.hidden, recent, ahead)
    is_whole = ((state.time > horizon) & jnp.isfinite(y)).astype(y.dtype)
    if config.learning:
        truths = state.recent[:horizon][::-1]
        state = _model.fit(config, parts, state, regressors, truths, is_whole)
    exogenous = _exogenous(config, state, x, state.time)
    new = jnp.concatenate([_model.basis(state, state.recent), exogenous])
    pending = jnp.concatenate([new[None], stream.pending[:-1]])
    stream = stream._replace(state=state, pending=pending, features=features)
    predictions, weights, forecast = _predict(config, stream, jnp.tile(x, (horizon, 1)))
    offsets = _interval.offsets(state.interval)
    stream = stream._replace(
        predictions=jnp.concatenate([predictions[None], stream.predictions[:-1] - shift]),
        weights=jnp.concatenate([weights[None], stream.weights[:-1]]),
        offsets=jnp.concatenate([offsets[None], stream.offsets[:-1]]),
        forecast=forecast,
    )
    lower, upper = forecast[None] + offsets.T
    origin = jnp.concatenate(state.origin)
    tail = state.interval.tail
    return stream, ForecastResult(previous - shift, forecast, lower, upper, tail, origin)


def forecast(config: Config, stream: ForecastState, xs: jax.Array) -> jax.Array:
    """Forecasts the next H values with features, pairs (H, n, 2), ahead; also the origin, (H + 2,)."""
    differences = jax.vmap(_origin.difference, in_axes=(0, None))(xs, stream.state.input_origin)
    return jnp.concatenate([_predict(config, stream, differences)[2], *stream.state.origin])


def _predict(
    config: Config, stream: ForecastState, xs: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Predictions of the experts, their weights, (H, experts) each, and the forecast, (H,)."""
    parts, state = network_parts(config), stream.state

    def advance(hidden, x):
        return _network.next_hidden(parts, state.network, hidden, x), None

    hidden, _ = jax.lax.scan(advance, state.network.learner.hidden, stream.pending[::-1])
    ahead = _ahead(config, state, xs, state.time, state.recent)
    regressors = _regressors(config, state, hidden, state.recent, ahead)
    predictions = _model.predict(config, state, regressors)
    combined, weights = _model.combine(state, predictions)
    return predictions, weights, combined


def _inputs(config: Config) -> int:
    return _BASIS + 2 * _HARMONICS * (config.period > 0) + config.features


def _ahead(config: Config, state: State, xs: jax.Array, count: jax.Array, recent: jax.Array) -> jax.Array:
    """Regressors of each of the H times after `count` values, the last of which are `recent`, (H, n)."""
    times = count + jnp.arange(1, config.horizon + 1)
    exogenous = jax.vmap(lambda x, time: _exogenous(config, state, x, time))(xs, times)
    if not config.period:
        return exogenous
    distance = _model.seasonal(state, _season(config, recent), recent[0])
    return jnp.concatenate([distance[:, None], exogenous], axis=1)


def _exogenous(config: Config, state: State, x: jax.Array, count: jax.Array) -> jax.Array:
    """The clock and the features in units of order 1, (n,)."""
    features = _scale.standard(state.inputs, x)
    if not config.period:
        return features
    # The remainder first: a float would lose the place in the season after some million steps.
    phase = 2 * jnp.pi * (count % config.period).astype(x.dtype) / config.period
    waves = [turn(k * phase) for k in range(1, _HARMONICS + 1) for turn in (jnp.cos, jnp.sin)]
    return jnp.concatenate([jnp.stack(waves), features])


def _season(config: Config, recent: jax.Array) -> jax.Array:
    """The values one season before each of the next H times, or as many seasons as it takes."""
    return jnp.stack([recent[config.period - 1 - h % config.period] for h in range(config.horizon)])


def _regressors(
    config: Config, state: State, hidden: Any, recent: jax.Array, ahead: jax.Array
) -> Regressors:
    season = _season(config, recent) if config.period else recent[:0]
    lags = _model.lags(config, state, recent)
    output = network_parts(config).cell.output(hidden)
    return Regressors(output, _model.basis(state, recent), lags, ahead, recent[0], season)
