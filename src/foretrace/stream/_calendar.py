"""Where a row stands in its day, its week and its year, as smooth waves."""

import jax
import jax.numpy as jnp
import numpy as np

SIZE = 5  # of a calendar: phases in day, week and year, then the short and the long season in rows
_DAY, _WEEK, _YEAR = 6, 3, 2  # harmonics
_PLAIN_SHORT, _PLAIN_LONG = 4, 2  # harmonics of seasons that no calendar names


def unknown(rows: int) -> np.ndarray:
    """Calendars that say nothing, (rows, 5)."""
    return np.tile(np.array([np.nan] * 3 + [0.0] * 2), (rows, 1))


def count(*, has_calendar: bool) -> int:
    """Length of `waves`."""
    return 2 * len(_turns(has_calendar))


def waves(phases: jax.Array, *, has_calendar: bool) -> jax.Array:
    """Cosine and sine of each harmonic of the day and the week, their sums and differences, and the year.

    The sums and differences let each day of the week have a course of its own. A forecast for any time
    ahead may be read from the waves of now, since those of another time are a rotation of them.

    Args:
        phases: (3,), share of the day, the week and the year that has passed, not finite where that is
            unknown: such waves are 0.
        has_calendar: False for a short and a long season in the place of day and week, with fewer waves.
    """
    turns = jnp.array(_turns(has_calendar), phases.dtype)
    known = jnp.isfinite(phases)
    is_known = jnp.all(known[None] | (turns == 0), axis=1)
    # In turns, and of these the rest: a float loses none of its digits in large multiples.
    angle = 2 * jnp.pi * (turns @ jnp.where(known, phases, 0) % 1)
    pairs = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return jnp.where(is_known[:, None], pairs, 0).ravel()


def _turns(has_calendar: bool) -> list[tuple[int, int, int]]:
    """How often each wave turns in a day, a week and a year."""
    if not has_calendar:
        short = [(k, 0, 0) for k in range(1, _PLAIN_SHORT + 1)]
        return short + [(0, k, 0) for k in range(1, _PLAIN_LONG + 1)]
    sides = [side * j for j in range(1, _WEEK + 1) for side in (1, -1)]
    return [
        *((k, 0, 0) for k in range(1, _DAY + 1)),
        *((0, k, 0) for k in range(1, _WEEK + 1)),
        *((0, 0, k) for k in range(1, _YEAR + 1)),
        *((k, side, 0) for k in range(1, _DAY + 1) for side in sides),
    ]
