"""Seasons of a stream: which there are, the values one season before, and their mean over the last few.

There is room for a short and a long season, such as a day and a week. The calendar names them, or they are
found: a season is a distance over which values change less than over shorter ones.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace.stream._scale import mean_size

DEVIATIONS = 6  # of a value from the seasons
FOUND = -1  # the period of a configuration whose seasons are to be found
_LONGEST = 2016  # rows of a season that is found: a week of five-minute rows
_RATE = 1 / 3  # of a mean over the last seasons
_DIP = 0.8  # a season changes less than so much of the most that shorter distances do
_LONG_DIP = 0.85  # the same for a long season, among the multiples of the short one
_LEAST = 0.01  # of the largest mean change
_CLEAR_DIP = 0.5  # the same for either before three of them, and fifty changes over one, have been seen
_MANY = 50
_SEEN = 2  # seasons that must have been seen before a short one is found
_EARLIEST = 48  # rows before any is
_OFTEN = 256  # rows between two choices, later on


class Seasons(NamedTuple):
    """What is known of the seasons; n rows back.

    Attributes:
        periods: (2,), rows of the short and the long season, 0 for none.
        values: (n,), the last values, each at the remainder of its number by n.
        means: (2, n), of the values at the same place in each season, likewise.
        distances: (longest,), mean absolute change over so many rows, and one more; empty unless sought.
    """

    periods: jax.Array
    values: jax.Array
    means: jax.Array
    distances: jax.Array


class Baselines(NamedTuple):
    """What seasons say at one time.

    Attributes:
        ahead: (H, 4), for each of the next H times the value one season before and the mean at that place,
            of the short season, then of the long one; the last value where there is no season.
        deviations: (6,), how far the last value is from the one before a season and from the mean there,
            and the value before it from the one before a season; 0 where there is no season.
    """

    ahead: jax.Array
    deviations: jax.Array


def init(period: int, horizon: int) -> Seasons:
    """Nothing known.

    Args:
        period: rows of a season that is given, else `FOUND`.
        horizon: H.
    """
    longest = _LONGEST if period == FOUND else 0
    n = max(longest, period) + 2 * horizon + 2
    periods = jnp.array([0, max(period, 0)], int)
    return Seasons(periods, jnp.zeros(n), jnp.zeros((2, n)), jnp.zeros(longest))


def add(
    seasons: Seasons, value: jax.Array, time: jax.Array, named: jax.Array, horizon: int
) -> tuple[Seasons, jax.Array]:
    """Adds the value after `time` others; also returns which seasons have changed, (2,).

    Args:
        seasons: so far.
        value: a difference from the origin.
        time: number of values before.
        named: (2,), periods by the calendar, 0 where it names none.
        horizon: H; a season named is seen once it says something of the farthest time ahead.
    """
    n = len(seasons.values)
    periods, distances = seasons.periods, seasons.distances
    if len(distances):
        # Numbers that are written out: `jnp.arange` would be a kernel beside that of the step.
        lags = jnp.asarray(np.arange(1, len(distances) + 1))
        counts = jnp.maximum(time - lags, 0).astype(value.dtype)
        sizes = mean_size(distances, counts, value - seasons.values[(time - lags) % n])
        distances = jnp.where(lags <= time, sizes, 0)
        named = jnp.where(named > len(distances), 0, named).astype(int)
        named = jnp.where(named <= time + horizon, named, 0)
        lowest = (time + 1) & -(time + 1)  # bit: after 1, 2, 3, 4, 6, 8, 12, 16 .. values
        is_due = (lowest == time + 1) | (3 * lowest == time + 1) | (time % _OFTEN == 0)
        is_due = is_due | jnp.any((named > 0) & (named != periods))
        periods = _choose_if_due(is_due, periods, distances, time + 1, named)
    has_changed = periods != seasons.periods
    # A season that is new has no means yet: the values stand in for them.
    means = jnp.where(has_changed[:, None], seasons.values, seasons.means)
    before = means[np.arange(2), (time - periods) % n]
    rounds = time // jnp.maximum(periods, 1)
    rate = jnp.maximum(_RATE, 1 / (1 + rounds.astype(value.dtype)))
    mean = jnp.where((rounds > 0) & (periods > 0), before + rate * (value - before), value)
    place = time % n
    values = seasons.values.at[place].set(value)
    return Seasons(periods, values, means.at[:, place].set(mean), distances), has_changed


def baselines(seasons: Seasons, time: jax.Array, horizon: int) -> Baselines:
    """What the seasons say at the last of `time` values, of which at most 2 H are newer than it."""
    n = len(seasons.values)
    steps = jnp.arange(1, horizon + 1)

    def at(ring, back):
        return ring[(time - 1 - jnp.minimum(back, jnp.maximum(time - 1, 0))) % n]

    last, previous = at(seasons.values, 0), at(seasons.values, 1)
    ahead, deviations = [], []
    for i in range(2):
        period = seasons.periods[i]
        rows = jnp.maximum(period, 1)
        back = -(-steps // rows) * rows - steps
        season, mean = at(seasons.values, back), at(seasons.means[i], back)
        is_past = (period > 0) & (back < time)
        ahead += [jnp.where(is_past, each, last) for each in (season, mean)]
        is_known = (period > 0) & (period < time)
        differences = (
            last - at(seasons.values, rows),
            last - at(seasons.means[i], rows),
            previous - at(seasons.values, rows + 1),
        )
        deviations += [jnp.where(is_known, each, 0) for each in differences]
    return Baselines(jnp.stack(ahead, axis=1), jnp.stack(deviations))


def phases(seasons: Seasons, time: jax.Array) -> jax.Array:
    """Share of the short and the long season that has passed after `time` values, then NaN, (3,)."""
    periods = seasons.periods
    # The remainder first: a float would lose the place in the season after some million steps.
    rows = jnp.maximum(periods, 1)
    share = (time % rows).astype(float) / rows.astype(float)
    return jnp.append(jnp.where(periods > 0, share, jnp.nan), jnp.nan)


def shift(seasons: Seasons, distance: jax.Array) -> Seasons:
    """Subtracts a distance by which the origin moved."""
    return seasons._replace(values=seasons.values - distance, means=seasons.means - distance)


@jax.custom_batching.custom_vmap
def _choose_if_due(
    is_due: jax.Array, periods: jax.Array, distances: jax.Array, time: jax.Array, named: jax.Array
) -> jax.Array:
    return jax.lax.cond(is_due, _choose, lambda now, *_: now, periods, distances, time, named)


@_choose_if_due.def_vmap
def _choose_where_due(size: int, in_batched: Any, *arguments: jax.Array) -> tuple[jax.Array, bool]:
    """For many streams: `vmap` alone would choose at every step, due or not."""
    is_due, *rest = (
        each if batched else jnp.broadcast_to(each, (size, *each.shape))
        for each, batched in zip(arguments, in_batched, strict=True)
    )

    def choose():
        return jnp.where(is_due[:, None], jax.vmap(_choose)(*rest), rest[0])

    return jax.lax.cond(jnp.any(is_due), choose, lambda: rest[0]), True


def _choose(periods: jax.Array, distances: jax.Array, time: jax.Array, named: jax.Array) -> jax.Array:
    """The short and the long season, (2,): those of the calendar unless another is clearly better."""
    short, long = _find(distances, time)
    is_free = named == 0
    found = jnp.stack([short, long])
    best = jnp.where(long > 0, long, short)

    def change(period):
        is_measured = (period > 0) & (period < time)
        return jnp.where(is_measured, distances[jnp.maximum(period, 1) - 1], jnp.inf)

    # A season that is there already need not be as clearly better as a new one.
    dip = jnp.where(jnp.any(periods == best), _DIP, _CLEAR_DIP)
    is_better = (change(best) < dip * jnp.min(change(named))) & jnp.any(is_free)
    with_best = jnp.where(is_free & (jnp.cumsum(is_free) == 1) & is_better, best, named)
    return jnp.where(jnp.all(is_free), found, with_best)


def _find(distances: jax.Array, time: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The short and the long season, 0 where there is none, by the mean changes over all distances.

    Over a season values change less than over shorter distances; a long season stands out among the
    multiples of the short one.
    """
    lags = jnp.arange(1, len(distances) + 1)
    # Of changes that are next to nothing, none is less than another.
    distances = distances + _LEAST * jnp.max(distances)

    def first_dip(changes, dip, most):
        is_seen = (lags >= 2) & (lags <= most) & (time >= _EARLIEST)
        highest = jax.lax.cummax(jnp.where(jnp.isfinite(changes), changes, 0))
        dips = jnp.where((3 * lags <= time) & (lags <= time - _MANY), dip, _CLEAR_DIP)
        is_low = is_seen & (changes < dips * highest)
        start = jnp.argmax(is_low) + 1
        # Changes rise for half a season and fall for the other half.
        is_near = is_seen & (lags >= start) & (lags < 2 * start)
        lag = jnp.argmin(jnp.where(is_near, changes, jnp.inf)) + 1
        return jnp.where(jnp.any(is_low), lag, 0).astype(int)

    short = first_dip(distances, _DIP, time // _SEEN)
    # Beside a day a week is seen once it has passed, and an eighth more.
    long = jnp.minimum(time - short, time * 7 // 8)
    is_multiple = (short > 0) & (lags % jnp.maximum(short, 1) == 0)
    return short, first_dip(jnp.where(is_multiple, distances, jnp.inf), _LONG_DIP, long)
