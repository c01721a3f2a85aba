"""Model of regression and forecasting: experts that predict how far a value changes, and their mixture."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from foretrace.stream import _experts, _least_squares, _mixture, _network
from foretrace.stream._state import Config, State
from foretrace.stream._values import MOST, units


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


def combine(state: State, predictions: jax.Array) -> jax.Array:
    """The mixture of the experts' predictions, (H,)."""
    return jnp.sum(_experts.weights(state.experts) * predictions, axis=1)


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
