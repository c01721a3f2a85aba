"""Model of regression and forecasting: experts that predict how far a value changes, and their mixture."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from foretrace.stream import _experts, _interval, _least_squares, _mixture, _network, _origin, _scale

MOST = 20.0  # units of order 1 beyond which nothing is learned


class Config(NamedTuple):
    """Constants of a regression or forecast; another configuration is compiled anew.

    Attributes:
        cell: name of the cell.
        hidden: number of its units.
        features: number of features that there is room for.
        horizon: steps ahead.
        lags: changes in the least-squares readout beside the cell's output.
        target: "change", "level" or "auto".
        period: rows of a season, 0 for none; of a forecast -1 to find one or two.
        learning_rate: of the network.
        coverage: of the intervals.
        learning: False to learn nothing: then only the recent past continues.
        has_calendar: True if each row of a forecast comes with a calendar.
    """

    cell: str
    hidden: int
    features: int
    horizon: int
    lags: int
    target: str
    period: int
    learning_rate: float
    coverage: float
    learning: bool = True
    has_calendar: bool = False


class State(NamedTuple):
    """State of a regression or forecast; H is the horizon. Values are differences from the origin.

    Attributes:
        origin: of the values, (1,).
        input_origin: of the features.
        network: with readouts `change` and `level`, (H, features).
        linear: the least-squares readouts.
        experts: how well each expert did at each horizon: `ExpertWeights`, of a forecast a `Mixture`.
        interval: errors, from which the intervals are made.
        recent: the last values, newest first.
        time: values so far, an int.
        value: moments of the values, (1,).
        inputs: moments of the features.
        change: (H,), mean size of a change over so many steps.
    """

    origin: _origin.Origin
    input_origin: _origin.Origin
    network: _network.Network
    linear: Any
    experts: Any
    interval: _interval.Interval
    recent: jax.Array
    time: jax.Array
    value: _scale.Moments
    inputs: _scale.Moments
    change: jax.Array


class Regressors(NamedTuple):
    """Inputs of the readouts at one time, in units of order 1 but for the values.

    Attributes:
        output: (n,), of the cell.
        basis: (features,), the same at every horizon.
        lags: (lags,), the last changes.
        ahead: (H, n), known of each time ahead.
        last: the last value.
        season: (H,), the values one season before the times ahead; empty without one.
    """

    output: jax.Array
    basis: jax.Array
    lags: jax.Array
    ahead: jax.Array
    last: jax.Array
    season: jax.Array


def expert_names(config: Config) -> list[str]:
    """The experts' names, in their order."""
    names = ["persistence", "least squares"]
    names += [name for name in ("change", "level") if config.target in ("auto", name)]
    return names + ["season"] * (config.period > 0)


def init(
    config: Config,
    parts: _network.NetworkParts,
    key: Any,
    *,
    inputs: int,
    linear: Any,
    experts: Any,
    rows: int,
) -> State:
    """The state before the first value.

    Args:
        config: the configuration.
        parts: functions of the network.
        key: typed key.
        inputs: of the network's readouts.
        linear: the least-squares readouts.
        experts: how well they did.
        rows: number of recent values.
    """
    shape = config.horizon, inputs
    return State(
        origin=_origin.init(1),
        input_origin=_origin.init(config.features),
        network=_network.init(parts, key, {"change": shape, "level": shape}),
        linear=linear,
        experts=experts,
        interval=_interval.init(config.horizon, config.coverage),
        recent=jnp.zeros(rows),
        time=jnp.zeros((), int),
        value=_scale.init(1),
        inputs=_scale.init(config.features),
        change=jnp.ones(config.horizon),
    )


def predict(config: Config, state: State, regressors: Regressors) -> jax.Array:
    """The values ahead by every expert, (H, experts)."""
    unit, mean, spread = units(state)
    readouts = state.network.params
    inputs = _network_inputs(regressors, regressors.output)
    linear = _least_squares.predict(state.linear, _linear_inputs(regressors))
    by_name = {
        "persistence": jnp.zeros_like(unit),
        "least squares": unit * linear,
        "change": unit * jnp.sum(readouts["change"] * inputs, axis=1),
        "level": mean + spread * jnp.sum(readouts["level"] * inputs, axis=1) - regressors.last,
        "season": regressors.season - regressors.last,
    }
    changes = jnp.stack([by_name[name] for name in expert_names(config)], axis=1)
    # A readout that diverges predicts no more than the largest change that is ever learned.
    most = MOST * jnp.maximum(unit, spread)[:, None]
    changes = jnp.clip(jnp.where(jnp.isfinite(changes), changes, 0), -most, most)
    return regressors.last + changes


def combine(state: State, predictions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mixture of the experts' predictions, (H,), and their weights, (H, experts)."""
    weights = _experts.weights(state.experts)
    return jnp.sum(weights * predictions, axis=1), weights


def weights_of(names: Sequence[str], state: State) -> dict[str, float]:
    """The weight at the shortest horizon of all experts of each name."""
    sums: dict[str, float] = {}
    weigh: Any = _mixture.weights if isinstance(state.experts, _mixture.Mixture) else _experts.weights
    for name, weight in zip(names, weigh(state.experts)[0].tolist(), strict=True):
        sums[name] = sums.get(name, 0.0) + weight
    return sums


def fit(
    config: Config,
    parts: _network.NetworkParts,
    state: State,
    regressors: Regressors,
    truth: jax.Array,
    weight: jax.Array,
) -> State:
    """Fits all readouts and the cell to the values (H,) after the regressors; not at all with weight 0."""
    change = jnp.clip((truth - regressors.last) / state.change, -MOST, MOST)
    # An unknown value teaches nothing.
    weight = jnp.where(jnp.all(jnp.isfinite(change)), weight, 0)
    change = jnp.where(weight > 0, change, 0)
    linear = _least_squares.fit(state.linear, _linear_inputs(regressors), change, weight)

    def inputs(output):
        return _network_inputs(regressors, output)

    network = fit_network(config, parts, state, inputs, regressors.last, truth, weight)
    return state._replace(network=network, linear=linear)


def fit_network(
    config: Config,
    parts: _network.NetworkParts,
    state: State,
    inputs: Callable[[jax.Array], jax.Array],
    last: jax.Array,
    truth: jax.Array,
    weight: jax.Array,
) -> _network.Network:
    """Fits the network's readouts and the cell to the values (H,) after the last one; not with weight 0.

    Args:
        config: the configuration.
        parts: functions of the network.
        state: the state.
        inputs: of the readouts, (H, n), from the cell's output.
        last: the last value.
        truth: the values ahead.
        weight: of this sample.
    """
    unit, mean, spread = units(state)
    change = jnp.clip((truth - last) / unit, -MOST, MOST)
    level = jnp.clip((truth - mean) / spread, -MOST, MOST)
    weight = jnp.where(jnp.all(jnp.isfinite(change)), weight, 0)
    change, level = (jnp.where(weight > 0, target, 0) for target in (change, level))

    def loss(readouts, hidden):
        ahead = inputs(parts.cell.output(hidden))
        errors = [
            jnp.sum(readouts[name] * ahead, axis=1) - target
            for name, target in (("change", change), ("level", level))
            if config.target in ("auto", name)
        ]
        return jnp.mean(sum(optax.losses.huber_loss(error) for error in errors))

    return _network.fit(parts, state.network, loss, weight)


def add_value(config: Config, state: State, value: jax.Array, substitute: jax.Array) -> State:
    """Adds a value as the newest one, or the substitute where it is not finite.

    A substitute does not count for the scales: scales made of the model's own forecasts would let these
    grow without bounds.
    """
    steps = jnp.arange(1, config.horizon + 1)
    over = jnp.where(steps <= state.time, value - state.recent[: config.horizon], jnp.nan)
    moments = _scale.update(state.value, value[None])
    value = _scale.values_or(value, substitute)
    counts = jnp.maximum(state.time - steps, 0).astype(over.dtype)
    sizes = _scale.mean_size(state.change, counts, jnp.where(jnp.isfinite(over), over, 0))
    shifted = jnp.concatenate([value[None], state.recent[:-1]])
    return state._replace(
        recent=jnp.where(state.time == 0, value, shifted),
        time=state.time + 1,
        value=moments,
        change=jnp.where(jnp.isfinite(over), sizes, state.change),
    )


def differences(state: State, x: jax.Array, y: jax.Array) -> tuple[State, jax.Array, jax.Array]:
    """Features (n,) and value as differences from the origins, which start at the first ones.

    Args:
        state: the state.
        x: features, pairs (n, 2).
        y: the value, a pair (2,).
    """
    origin = _origin.start(state.origin, y[None], state.value.samples)
    input_origin = _origin.start(state.input_origin, x, state.inputs.samples)
    state = state._replace(origin=origin, input_origin=input_origin)
    return state, _origin.difference(x, input_origin), _origin.difference(y[None], origin)[0]


def follow(state: State) -> tuple[State, jax.Array, jax.Array]:
    """Moves the origins after values and features; also returns how far, () and (n,)."""
    # Medians: a single glitch is not followed, which would cost the other values their digits.
    a, b, c, *rest = state.recent[:4]
    center, unit = _median(a, b, c), _median(abs(a - b), abs(b - c), abs(c - (rest or [c])[0]))
    origin, shift = _origin.follow(state.origin, center[None], unit[None])
    mean, spread = state.inputs.mean, jnp.sqrt(state.inputs.variance)
    input_origin, input_shift = _origin.follow(state.input_origin, mean, spread)
    state = state._replace(
        origin=origin,
        input_origin=input_origin,
        recent=state.recent - shift[0],
        value=state.value._replace(mean=state.value.mean - shift),
        inputs=state.inputs._replace(mean=mean - input_shift),
    )
    return state, shift[0], input_shift


def basis(state: State, recent: jax.Array) -> jax.Array:
    """1, the last change and the level, (3,), of values, newest first, in units of order 1."""
    change = jnp.clip((recent[0] - recent[1]) / state.change[0], -5, 5)
    return jnp.stack([jnp.ones_like(change), change, _scale.standard(state.value, recent[:1])[0]])


def lags(config: Config, state: State, recent: jax.Array) -> jax.Array:
    """The last changes, newest first, (lags,), in units of their mean size."""
    values = recent[: config.lags + 1]
    return jnp.clip((values[:-1] - values[1:]) / state.change[0], -MOST, MOST)


def seasonal(state: State, season: jax.Array, last: jax.Array) -> jax.Array:
    """How far the values of one season ago, (H,), are from the last one, in units of a change."""
    return jnp.clip((season - last) / state.change, -5, 5)


def _median(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.minimum(a, b), jnp.minimum(jnp.maximum(a, b), c))


def units(state: State):
    """Mean sizes of changes (H,), mean and spread of the values."""
    mean = state.value.mean[0]
    spread = jnp.sqrt(state.value.variance[0])
    return state.change, mean, jnp.maximum(spread, jnp.maximum(1e-6 * abs(mean), _scale.TINY))


def _network_inputs(regressors: Regressors, output: jax.Array) -> jax.Array:
    """Inputs of the network's readouts, (H, n)."""
    common = jnp.concatenate([regressors.basis, output])
    ahead = regressors.ahead
    return jnp.concatenate([jnp.tile(common, (len(ahead), 1)), ahead], axis=1)


def _linear_inputs(regressors: Regressors) -> jax.Array:
    """Inputs of the least-squares readouts, (1 or H, n)."""
    common = jnp.concatenate([regressors.basis, regressors.output, regressors.lags])
    ahead = regressors.ahead
    if not ahead.shape[1]:
        return common[None]
    return jnp.concatenate([jnp.tile(common, (len(ahead), 1)), ahead], axis=1)
