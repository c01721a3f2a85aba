"""Values of a stream as differences from an origin that follows them, and the units of these."""

import jax
import jax.numpy as jnp

from foretrace.stream import _origin, _scale
from foretrace.stream._state import Config, State

MOST = 20.0  # units of order 1 beyond which nothing is learned


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
