"""The configuration and the state that regression and forecast share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace.stream import _interval, _network, _origin, _scale


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
