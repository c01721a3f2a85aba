"""Experts of a forecast: readouts of one vector for all times ahead, simple rules, a regression on them.

The value at each time ahead is regressed as a change from several baselines: the last value, the value one
season before and the mean there. All these readouts share one vector of inputs, and so one covariance. A
plain one knows nothing of seasons: it learns from fewer rows, and where there are none it is not worse.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from foretrace.stream import _least_squares, _short_regression, _values
from foretrace.stream._state import Config, State
from foretrace.stream._values import MOST

_BASELINES = 5  # the last value, and two for each of two seasons
_PRIOR = 0.01  # variance of the readouts' weights at first: there are many
_UNIT = 3.0  # of deviations from a season, in mean changes


class Moment(NamedTuple):
    """What is known at one time, in units of order 1 but for the values.

    Attributes:
        output: (n,), of the cell.
        common: (n,), inputs that are the same for every time ahead, those without seasons first.
        x: (H, features), standardised features of the times ahead.
        ahead: (H, n), inputs of the network's readouts that differ.
        last: the last value.
        baselines: (H, m), of each time ahead; the last value first.
        short: (H, n), inputs of the short regression; empty without seasons.
    """

    output: jax.Array
    common: jax.Array
    x: jax.Array
    ahead: jax.Array
    last: jax.Array
    baselines: jax.Array
    short: jax.Array


class Readouts(NamedTuple):
    """Least-squares readouts.

    Attributes:
        plain: changes from the last value, (H, inputs), without seasons.
        changes: from the baselines, (H m, inputs), with one covariance; none without seasons.
        short: of few inputs, (H, n); none without seasons.
        stack: of the experts' own forecasts, (H, experts).
        anew: whether a season has changed since the last fit: then all readouts are unsure.
    """

    plain: _least_squares.LeastSquares
    changes: _least_squares.LeastSquares
    short: _least_squares.LeastSquares
    stack: _least_squares.LeastSquares
    anew: jax.Array


def count(config: Config) -> int:
    """Number of baselines, m."""
    return _BASELINES if config.period else 0


def expert_names(config: Config) -> list[str]:
    """The experts' names, in their order, those without seasons first; some share one."""
    names = _names_of_few(config) + ["short regression"] * bool(config.period)
    names += ["least squares"] * count(config)
    return names + ["season"] * max(count(config) - 1, 0) + ["stack"]


def few(config: Config) -> int:
    """Number of the experts that know of no season, the first ones."""
    return len(_names_of_few(config))


def are_of_seasons(config: Config, seasons: jax.Array) -> jax.Array:
    """Which experts rest on any of the seasons that are marked, (2,), as flags (experts,)."""
    of_value_and_mean = jnp.repeat(seasons, 2)
    no = jnp.zeros(1, bool)
    others = jnp.zeros(few(config) + 1, bool)
    return jnp.concatenate([others, no, of_value_and_mean, of_value_and_mean, no])


def init(config: Config, plain: int, inputs: int) -> Readouts:
    """Readouts that predict no change.

    Args:
        config: the configuration.
        plain: number of inputs of the plain readouts.
        inputs: length of the output and the common inputs of a moment.
    """
    rows, experts = config.horizon * count(config), len(expert_names(config))
    return Readouts(
        _least_squares.init(config.horizon, plain, shared=not config.features or config.horizon == 1),
        _least_squares.init(rows, inputs if rows else 0, shared=True, prior=_PRIOR),
        _short_regression.init(config.horizon if rows else 0, config.lags),
        _least_squares.init(config.horizon, experts - 1 + config.features, shared=False, prior=_PRIOR),
        jnp.zeros((), bool),
    )


def predict(config: Config, state: State, readouts: Readouts, moment: Moment) -> jax.Array:
    """The values ahead by every expert, (H, experts)."""
    unit, mean, spread = _values.units(state)
    inputs, last = network_inputs(moment, moment.output), moment.last
    plain = _least_squares.predict(readouts.plain, _plain(readouts, moment))
    weights = state.network.params
    by_name = {
        "persistence": jnp.zeros_like(unit),
        "least squares": unit * jnp.clip(plain, -MOST, MOST),
        "change": unit * jnp.sum(weights["change"] * inputs, axis=1),
        "level": mean + spread * jnp.sum(weights["level"] * inputs, axis=1) - last,
    }
    changes = [by_name[name][:, None] for name in _names_of_few(config)]
    if config.period:
        short = _least_squares.predict(readouts.short, moment.short)
        changes.append((unit * jnp.clip(short, -MOST, MOST))[:, None])
        linear = _least_squares.predict(readouts.changes, _common(moment)).reshape(moment.baselines.shape)
        changes.append(moment.baselines - last + unit[:, None] * jnp.clip(linear, -MOST, MOST))
        changes.append(moment.baselines[:, 1:] - last)
    # A readout that diverges predicts no more than the largest change that is ever learned.
    most = MOST * jnp.maximum(unit, spread)[:, None]
    changes = jnp.concatenate(changes, axis=1)
    changes = jnp.clip(jnp.where(jnp.isfinite(changes), changes, 0), -most, most)
    stacked = unit * _least_squares.predict(readouts.stack, _stack_inputs(changes[:, 1:], unit, moment.x))
    stacked = jnp.clip(jnp.where(jnp.isfinite(stacked), stacked, 0)[:, None], -most, most)
    return last + jnp.concatenate([changes, stacked], axis=1)


def fit(state: State, readouts: Readouts, moment: Moment, truth: jax.Array, weight: jax.Array) -> Readouts:
    """Fits the readouts to the values (H,) after a moment; not at all with weight 0."""
    weight = jnp.where(jnp.all(jnp.isfinite(truth)), weight, 0)

    def targets(baselines):
        changes = (truth[:, None] - baselines) / state.change[:, None]
        return jnp.where(weight > 0, jnp.clip(changes, -MOST, MOST), 0).ravel()

    last = jnp.full_like(truth, moment.last)[:, None]
    plain = _least_squares.fit(readouts.plain, _plain(readouts, moment), targets(last), weight)
    readouts = readouts._replace(plain=plain)
    if not len(readouts.changes.weights):
        return readouts
    changes = _least_squares.fit(
        readouts.changes,
        _common(moment),
        targets(moment.baselines),
        weight,
        prior=_PRIOR,
        anew=readouts.anew,
    )
    short = _least_squares.fit(
        readouts.short,
        moment.short,
        targets(last),
        weight,
        prior=_short_regression.PRIOR,
        anew=readouts.anew,
    )
    return readouts._replace(changes=changes, short=short, anew=jnp.zeros_like(readouts.anew))


def fit_stack(
    state: State, readouts: Readouts, predictions: jax.Array, truth: jax.Array, x: jax.Array
) -> Readouts:
    """Fits the regression on the experts' forecasts, (H, experts), of the value that has come.

    Args:
        state: the state.
        readouts: to be fitted.
        predictions: made 1 to H rows before.
        truth: (H,), not finite where there was no forecast or no value.
        x: standardised features of the value, (n,).
    """
    last, unit = predictions[:, 0], state.change
    targets = (truth - last) / unit
    weight = jnp.isfinite(targets).astype(targets.dtype)
    targets = jnp.where(weight > 0, jnp.clip(targets, -MOST, MOST), 0)
    ahead = jnp.tile(x, (len(last), 1))
    inputs = _stack_inputs(predictions[:, 1:-1] - last[:, None], unit, ahead)
    stack = _least_squares.fit(readouts.stack, inputs, targets, weight, prior=_PRIOR)
    return readouts._replace(stack=stack)


def begin_anew(readouts: Readouts, has_changed: jax.Array) -> Readouts:
    """Forgets what was learned of seasons, (2,), that have changed."""
    old = readouts.changes
    n = old.weights.shape[-1]
    is_new = jnp.concatenate([jnp.zeros(1, bool), jnp.repeat(has_changed, 2)])
    rows = old.weights.reshape(-1, len(is_new), n)
    weights = jnp.where(is_new[:, None], 0, rows).reshape(-1, n)
    return readouts._replace(
        changes=old._replace(weights=weights),
        short=_short_regression.begin_anew(readouts.short, has_changed),
        anew=readouts.anew | jnp.any(has_changed),
    )


def network_inputs(moment: Moment, output: jax.Array) -> jax.Array:
    """Inputs of the network's readouts, (H, n)."""
    return jnp.concatenate([jnp.tile(output, (len(moment.ahead), 1)), moment.ahead], axis=1)


def deviations(state: State, values: jax.Array) -> jax.Array:
    """Distances of values in units of order 1."""
    return jnp.clip(values / (_UNIT * state.change[0]), -MOST, MOST)


def _names_of_few(config: Config) -> list[str]:
    network = [name for name in ("change", "level") if config.target in ("auto", name)]
    return ["persistence", "least squares", *network]


def _plain(readouts: Readouts, moment: Moment) -> jax.Array:
    """Inputs of the plain readouts, (1 or H, n), with the features of each time ahead."""
    horizon, features = moment.x.shape
    inputs = _common(moment)[:, : readouts.plain.weights.shape[1] - features]
    if not features:
        return inputs
    return jnp.concatenate([jnp.tile(inputs, (horizon, 1)), moment.x], axis=1)


def _common(moment: Moment) -> jax.Array:
    return jnp.concatenate([moment.output, moment.common])[None]


def _stack_inputs(changes: jax.Array, unit: jax.Array, x: jax.Array) -> jax.Array:
    """Inputs of the regression on changes by experts, (H, n)."""
    changes = jnp.clip(changes / unit[:, None], -MOST, MOST)
    return jnp.concatenate([jnp.ones_like(changes[:, :1]), changes, x], axis=1)
