"""Forecasts of a stream: a value arrives, the values of the next H times are forecast.

The network that learns is H steps late: it stands where all of its H truths have just arrived, so that each
update has the whole gradient of all horizons. Forecasts come from the same network, advanced through the
last H inputs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace.stream import (
    _ahead,
    _calendar,
    _experts,
    _interval,
    _mixture,
    _model,
    _network,
    _origin,
    _scale,
    _seasons,
    _short_regression,
    _state,
    _values,
)
from foretrace.stream._ahead import Moment
from foretrace.stream._state import Config, State

_BASIS = 3


class ForecastState(NamedTuple):
    """State of a forecaster; H is the horizon.

    Attributes:
        state: of the model.
        pending: (H, n), inputs that the network has not yet learned from, newest first.
        features: (H + 1, features), the last features, newest first.
        calendars: (H + 1, 5), the last calendars, newest first; empty without.
        seasons: of the values.
        predictions: (H, H, experts), of the experts, newest first; then the horizon.
        combined: (H, H, 5), of the mixtures, likewise.
        offsets: (H, H, 2), of the intervals at that time.
        forecast: (H,), the newest forecast.
        informed: the experts' weights where the features ahead are known; of none without features.
    """

    state: State
    pending: jax.Array
    features: jax.Array
    calendars: jax.Array
    seasons: _seasons.Seasons
    predictions: jax.Array
    combined: jax.Array
    offsets: jax.Array
    forecast: jax.Array
    informed: _experts.ExpertWeights


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
    horizon, parts = config.horizon, network_parts(config)
    few, experts = _ahead.few(config), len(_ahead.expert_names(config))
    predictions = jnp.zeros((horizon, horizon, experts))
    units = _network.output_size(parts)
    plain = units + _BASIS + config.lags + config.features
    common = plain
    if config.period:
        common += _calendar.count(has_calendar=config.has_calendar) + _seasons.DEVIATIONS
    return ForecastState(
        state=_state.init(
            config,
            parts,
            key,
            inputs=units + _inputs(config),
            linear=_ahead.init(config, plain, common),
            experts=_mixture.init(horizon, few, experts),
            rows=horizon + config.lags + 1,
        ),
        pending=jnp.zeros((horizon, _inputs(config))),
        features=jnp.zeros((horizon + 1, config.features)),
        calendars=jnp.full((horizon + 1, _calendar.SIZE * config.has_calendar), jnp.nan),
        seasons=_seasons.init(config.period, horizon),
        predictions=predictions,
        combined=jnp.zeros((horizon, horizon, _mixture.FORECASTS)),
        offsets=jnp.full((horizon, horizon, 2), jnp.inf),
        forecast=jnp.zeros(horizon),
        informed=_experts.init(horizon, experts if config.features else 0),
    )


def learn(
    config: Config, stream: ForecastState, x: jax.Array, y: jax.Array, calendar: jax.Array | None = None
) -> tuple[ForecastState, ForecastResult]:
    """Learns the value y with features x, and forecasts the values after it.

    Args:
        config: the configuration.
        stream: the state.
        x: features, pairs (n, 2), not finite where they are unknown.
        y: the value, a pair (2,), not finite if it is unknown: then its forecast stands in for it, and
            nothing is learned from it.
        calendar: of the row, (5,), as `_calendar.SIZE` says; given if `has_calendar`.
    """
    parts, horizon = network_parts(config), config.horizon
    state, x, y = _values.differences(stream.state, x, y)
    steps = jnp.arange(horizon)
    predictions, combined = stream.predictions[steps, steps], stream.combined[steps, steps]
    previous = combined[:, -1]
    truth = jnp.where(steps < state.time, y, jnp.nan)
    if config.learning:
        state = state._replace(
            experts=_mixture.update(state.experts, predictions, combined, truth, state.change),
            interval=_interval.update(
                state.interval, truth - previous, config.coverage, stream.offsets[steps, steps]
            ),
            inputs=_scale.update(state.inputs, x),
        )
        standard = _scale.standard(state.inputs, x)
        readouts = _ahead.fit_stack(state, state.linear, predictions, truth, standard)
        state = state._replace(linear=readouts)
    time = state.time
    state = _values.add_value(config, state, y, stream.forecast[0])
    calendars, named = stream.calendars, jnp.zeros(2)
    if calendar is not None:
        calendars, named = jnp.concatenate([calendar[None], calendars[:-1]]), calendar[3:]
    seasons = stream.seasons
    if config.period:
        seasons, has_changed = _seasons.add(seasons, state.recent[0], time, named, horizon)
        if config.learning:
            is_new = _ahead.are_of_seasons(config, has_changed)
            experts = _mixture.begin_anew(state.experts, is_new)
            linear = _ahead.begin_anew(state.linear, has_changed)
            state = state._replace(experts=experts, linear=linear)
    state, shift, input_shift = _values.follow(state)
    x = x - input_shift
    stream = stream._replace(
        state=state,
        features=jnp.concatenate([x[None], stream.features[:-1] - input_shift[None]]),
        calendars=calendars,
        seasons=_seasons.shift(seasons, shift),
    )
    # By now all H values after the place of the network that learns are known.
    state = state._replace(network=_network.step(parts, state.network, stream.pending[-1]))
    stream = stream._replace(state=state)
    if config.learning:
        stream = _fit(config, parts, stream, y)
    state = stream.state
    new = jnp.concatenate([_values.basis(state, state.recent), _scale.standard(state.inputs, x)])
    stream = stream._replace(pending=jnp.concatenate([new[None], stream.pending[:-1]]))
    predictions, combined = _predict(config, stream, jnp.tile(x, (horizon, 1)))
    forecast = combined[:, -1]
    offsets = _interval.offsets(state.interval)
    stream = stream._replace(
        predictions=jnp.concatenate([predictions[None], stream.predictions[:-1] - shift]),
        combined=jnp.concatenate([combined[None], stream.combined[:-1] - shift]),
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
    predictions, combined = _predict(config, stream, differences)
    ahead = combined[:, -1]
    if config.features:
        ahead = jnp.sum(_experts.weights(stream.informed) * predictions, axis=1)
    return jnp.concatenate([ahead, *stream.state.origin])


def _fit(
    config: Config, parts: _network.NetworkParts, stream: ForecastState, y: jax.Array
) -> ForecastState:
    """Fits everything at the time of H rows ago, all values after which are known now."""
    state, horizon = stream.state, config.horizon
    x = _standard(state, stream.features[:horizon][::-1])
    moment = _moment(config, stream, state.network.learner.hidden, x, horizon)
    truth = state.recent[:horizon][::-1]
    weight = ((state.time > horizon) & jnp.isfinite(y)).astype(y.dtype)

    if config.features:
        # Other than the forecasts that were made, these have the features that came.
        predictions = _ahead.predict(config, state, state.linear, moment)
        combined = jnp.sum(_experts.weights(stream.informed) * predictions, axis=1)
        known = jnp.where(weight > 0, truth, jnp.nan)
        informed = _experts.update_weights(stream.informed, predictions, combined, known, state.change)
        stream = stream._replace(informed=informed)

    def inputs(output):
        return _ahead.network_inputs(moment, output)

    state = state._replace(
        network=_model.fit_network(config, parts, state, inputs, moment.last, truth, weight),
        linear=_ahead.fit(state, state.linear, moment, truth, weight),
    )
    return stream._replace(state=state)


def _predict(config: Config, stream: ForecastState, xs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Predictions of the experts, (H, experts), and of the mixtures, (H, 5)."""
    parts, state = network_parts(config), stream.state

    def advance(hidden, x):
        return _network.next_hidden(parts, state.network, hidden, x), None

    hidden, _ = jax.lax.scan(advance, state.network.learner.hidden, stream.pending[::-1])
    x = _standard(state, xs)
    moment = _moment(config, stream, hidden, x, 0)
    predictions = _ahead.predict(config, state, state.linear, moment)
    return predictions, _mixture.combine(state.experts, predictions)


def _inputs(config: Config) -> int:
    return _BASIS + config.features


def _phases(config: Config, stream: ForecastState, late: int) -> jax.Array:
    """Where a row stands in its cycles, by its date if it has one, else by the seasons that were found."""
    phases = _seasons.phases(stream.seasons, stream.state.time - late)
    if not config.has_calendar:
        return phases
    named = stream.calendars[late, :3]
    return jnp.where(jnp.any(jnp.isfinite(named)), named, phases)


def _standard(state: State, xs: jax.Array) -> jax.Array:
    return jax.vmap(_scale.standard, in_axes=(None, 0))(state.inputs, xs)


def _moment(config: Config, stream: ForecastState, hidden: Any, x: jax.Array, late: int) -> Moment:
    """What was known so many rows ago, with the standardised features, (H, n), of the times after it."""
    state, horizon = stream.state, config.horizon
    recent = state.recent[late:]
    basis, last = _values.basis(state, recent), recent[0]
    lags = _values.lags(config, state, recent)
    common, short = [basis, lags], jnp.zeros((0, 0))
    baselines = jnp.full((horizon, 1), last)
    if config.period:
        seasonal = _seasons.baselines(stream.seasons, state.time - late, horizon)
        baselines = jnp.concatenate([baselines, seasonal.ahead], axis=1)
        phases = _seasons.phases(stream.seasons, state.time - late)
        short = _short_regression.inputs(lags, seasonal.ahead, last, state.change, phases)
        common.append(_ahead.deviations(state, seasonal.deviations))
        common.append(_calendar.waves(_phases(config, stream, late), has_calendar=config.has_calendar))
    output = network_parts(config).cell.output(hidden)
    ahead = jnp.concatenate([jnp.tile(basis, (horizon, 1)), x], axis=1)
    return Moment(output, jnp.concatenate([*common, x[0]]), x, ahead, last, baselines, short)
