"""What regression and forecasting share: experts that say how far a value changes, and their mixture."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from foretrace.stream import _experts, _least_squares, _network, _scale
from foretrace.stream._interval import Interval, interval

_MOST = 20.0  # units of order 1 beyond which nothing is learned


class Plan(NamedTuple):
    """What is fixed while a stream runs; every other one is compiled anew.

    Attributes:
        cell: name of the cell.
        hidden: number of its units.
        features: number of features that there is room for.
        horizon: steps ahead.
        lags: changes that the least-squares readout sees beside the hidden state.
        target: "change", "level" or "auto".
        period: steps of a season, 0 for none.
        learning_rate: of the network.
        coverage: of the intervals.
        learning: whether weights, trust and intervals change; else only what is remembered does.
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


class State(NamedTuple):
    """All of a regression that continues; H is the horizon.

    Attributes:
        network: with readouts `change` and `level`, (H, features).
        linear: the least-squares readouts.
        trust: in each expert, at each horizon.
        interval: what is known of the errors.
        recent: the last values, newest first.
        time: values seen, an int.
        value: moments of the values, (1,).
        inputs: moments of the features.
        change: (H,), mean size of a change over so many steps.
    """

    network: _network.Network
    linear: _least_squares.LeastSquares
    trust: _experts.Trust
    interval: Interval
    recent: jax.Array
    time: jax.Array
    value: _scale.Moments
    inputs: _scale.Moments
    change: jax.Array


class Seen(NamedTuple):
    """What the readouts see at one time, horizon by horizon.

    Attributes:
        hidden: the hidden state.
        basis: (features,), all but the hidden state and what follows.
        lags: (lags,), the last changes in units of their mean size.
        ahead: (H, n), what is known of the times ahead.
        last: the last value.
        season: (H,), the values one season before the times ahead; empty without one.
    """

    hidden: Any
    basis: jax.Array
    lags: jax.Array
    ahead: jax.Array
    last: jax.Array
    season: jax.Array


def experts(plan: Plan) -> list[str]:
    """The experts' names, in their order."""
    names = ["persistence", "least squares"]
    names += [name for name in ("change", "level") if plan.target in ("auto", name)]
    return names + ["season"] * (plan.period > 0)


def initial(plan: Plan, made: _network.Parts, key: Any, basis: int, ahead: int) -> State:
    """The state before anything was seen.

    Args:
        plan: what is fixed.
        made: the network's parts.
        key: typed key.
        basis: length of `Seen.basis`.
        ahead: what is known of each time ahead.
    """
    horizon, units = plan.horizon, _network.size(made)
    shape = horizon, units + basis + ahead
    return State(
        network=_network.network(made, key, {"change": shape, "level": shape}),
        linear=_least_squares.least_squares(
            horizon, units + basis + plan.lags + ahead, shared=not ahead or horizon == 1
        ),
        trust=_experts.trust(horizon, len(experts(plan))),
        interval=interval(horizon),
        recent=jnp.zeros(horizon + max(plan.lags, plan.period) + 1),
        time=jnp.zeros((), int),
        value=_scale.moments(1),
        inputs=_scale.moments(plan.features),
        change=jnp.ones(horizon),
    )


def say(plan: Plan, state: State, given: Seen) -> jax.Array:
    """What every expert says of the values ahead, (H, experts)."""
    unit, mean, spread = _units(state)
    hidden = _network.seen(given.hidden)
    readouts = state.network.params
    views = _views(given, hidden)
    found = {
        "persistence": jnp.zeros_like(unit),
        "least squares": unit * _least_squares.read(state.linear, _linear(given, hidden)),
        "change": unit * jnp.sum(readouts["change"] * views, axis=1),
        "level": mean + spread * jnp.sum(readouts["level"] * views, axis=1) - given.last,
        "season": given.season - given.last,
    }
    changes = jnp.stack([found[name] for name in experts(plan)], axis=1)
    # A readout that has gone astray says no more than the largest change that is ever learned.
    most = _MOST * jnp.maximum(unit, spread)[:, None]
    changes = jnp.clip(jnp.where(jnp.isfinite(changes), changes, 0), -most, most)
    return given.last + changes


def mix(state: State, said: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mixture of what the experts say, (H,), and their weights, (H, experts)."""
    weights = _experts.weights(state.trust)
    return jnp.sum(weights * said, axis=1), weights


def weights_of(plan: Plan, state: State) -> dict[str, float]:
    """What each expert counts for at the shortest horizon, by its name."""
    weights = _experts.weights(state.trust)[0].tolist()
    return dict(zip(experts(plan), weights, strict=True))


def learn(
    plan: Plan, made: _network.Parts, state: State, given: Seen, truth: jax.Array, weight: jax.Array
) -> State:
    """Fits all readouts and the cell to the values (H,) that came, with weight 0 or 1."""
    unit, mean, spread = _units(state)
    change = jnp.clip((truth - given.last) / unit, -_MOST, _MOST)
    level = jnp.clip((truth - mean) / spread, -_MOST, _MOST)
    # What is unknown teaches nothing.
    weight = jnp.where(jnp.all(jnp.isfinite(change)), weight, 0)
    change, level = (jnp.where(weight > 0, target, 0) for target in (change, level))

    def loss(readouts, hidden):
        views = _views(given, _network.seen(hidden))
        errors = [
            jnp.sum(readouts[name] * views, axis=1) - target
            for name, target in (("change", change), ("level", level))
            if plan.target in ("auto", name)
        ]
        return jnp.mean(sum(optax.losses.huber_loss(error) for error in errors))

    features = _linear(given, _network.seen(given.hidden))
    linear = _least_squares.fit(state.linear, features, change)
    keep = (weight > 0) & jnp.all(jnp.isfinite(linear.weights))
    linear = jax.tree.map(lambda new, old: jnp.where(keep, new, old), linear, state.linear)
    return state._replace(network=_network.fit(made, state.network, loss, weight), linear=linear)


def push(plan: Plan, state: State, value: jax.Array, instead: jax.Array) -> State:
    """Takes in a value as the newest one, or what stands in for it where it is not finite.

    What stands in says nothing about the values' size: scales that were made of the model's own forecasts
    would let these grow without bounds.
    """
    steps = jnp.arange(1, plan.horizon + 1)
    over = jnp.where(steps <= state.time, value - state.recent[: plan.horizon], jnp.nan)
    moments = _scale.seen(state.value, value[None])
    value = _scale.values_or(value, instead)
    counts = jnp.maximum(state.time - steps, 0).astype(over.dtype)
    sizes = _scale.size(state.change, counts, jnp.where(jnp.isfinite(over), over, 0))
    shifted = jnp.concatenate([value[None], state.recent[:-1]])
    return state._replace(
        recent=jnp.where(state.time == 0, value, shifted),
        time=state.time + 1,
        value=moments,
        change=jnp.where(jnp.isfinite(over), sizes, state.change),
    )


def basis(state: State, recent: jax.Array) -> jax.Array:
    """1, the last change and the level, (3,), of values, newest first, in units of order 1."""
    change = jnp.clip((recent[0] - recent[1]) / state.change[0], -5, 5)
    return jnp.stack([jnp.ones_like(change), change, _scale.standard(state.value, recent[:1])[0]])


def lags(plan: Plan, state: State, recent: jax.Array) -> jax.Array:
    """The last changes, newest first, (lags,), in units of their mean size."""
    values = recent[: plan.lags + 1]
    return jnp.clip((values[:-1] - values[1:]) / state.change[0], -_MOST, _MOST)


def seasonal(state: State, season: jax.Array, last: jax.Array) -> jax.Array:
    """How far the values of one season ago, (H,), are from the last one, in units of a change."""
    return jnp.clip((season - last) / state.change, -5, 5)


def _units(state: State):
    """Mean sizes of changes (H,), mean and spread of the values."""
    mean = state.value.mean[0]
    spread = jnp.sqrt(state.value.variance[0])
    return state.change, mean, jnp.maximum(spread, jnp.maximum(1e-6 * abs(mean), _scale.TINY))


def _views(given: Seen, hidden: jax.Array) -> jax.Array:
    """What the network's readouts see, (H, n)."""
    common = jnp.concatenate([given.basis, hidden])
    return jnp.concatenate([jnp.tile(common, (len(given.ahead), 1)), given.ahead], axis=1)


def _linear(given: Seen, hidden: jax.Array) -> jax.Array:
    """What the least-squares readouts see, (1 or H, n)."""
    common = jnp.concatenate([given.basis, hidden, given.lags])
    if not given.ahead.shape[1]:
        return common[None]
    return jnp.concatenate([jnp.tile(common, (len(given.ahead), 1)), given.ahead], axis=1)
