"""What a time stamp says of a row: where it stands in its day, week and year, and how long these are."""

import dataclasses
import math
from decimal import Decimal

from foretrace.forecast._spacing import DAY, Spacing, Stamp, spacing_of

_WEEK, _YEAR = 7 * DAY, 365.2425 * DAY
_MONTH = _YEAR / 12
_MONDAY = 4 * DAY  # seconds after the first day of 1970, a Thursday
_WINDOW = 65  # stamps that the step is the median of
_FIRST = 4  # rows from which on there is a step


@dataclasses.dataclass
class Calendar:
    """Cycles of a stream of dates; everything in it is JSON.

    Which cycles there are follows from the step, which is measured again after 4, 8, 16 .. rows: a run that
    is resumed, and rows that come one by one, see what a whole file does.

    Attributes:
        first: the first stamp in seconds by the clock on the wall; None before there was one.
        rows: stamps so far.
        recent: the last stamps, as text and offset.
        step: seconds from row to row, 0 until it is known.
        seasons: rows of the short and the long season, 0 where there is none.
    """

    first: float | None = None
    rows: int = 0
    recent: list = dataclasses.field(default_factory=list)
    step: float = 0.0
    seasons: list = dataclasses.field(default_factory=lambda: [0, 0])

    def add(self, stamp: Stamp) -> list[float]:
        """The calendar of the row with that stamp: phases in day, week and year, and both seasons, (5,)."""
        wall = float(stamp.wall)
        self.first = wall if self.first is None else self.first
        self.rows += 1
        self.recent = [*self.recent[1 - _WINDOW :], [str(stamp.when), stamp.offset]]
        if self.rows >= _FIRST and self.rows & (self.rows - 1) == 0:
            stamps = [Stamp(Decimal(when), offset) for when, offset in self.recent]
            spacing = spacing_of(stamps, True)
            if spacing:
                self.step, self.seasons = _step_of(spacing), _seasons_of(spacing)
        passed = wall - self.first
        # A cycle that the data has not gone through once is not yet told from a trend.
        cycles = (
            (0 < self.step < DAY / 2, wall / DAY),
            (0 < self.step <= 2 * DAY and passed >= _WEEK, (wall - _MONDAY) / _WEEK),
            (0 < self.step <= _YEAR / 3 and passed >= _YEAR, wall / _YEAR),
        )
        phases = [turn % 1 if is_known else math.nan for is_known, turn in cycles]
        return [*phases, *map(float, self.seasons)]


def _step_of(spacing: Spacing) -> float:
    """A step in seconds."""
    units = {"weekdays": DAY * 7 / 5, "months": _MONTH}
    return float(spacing.step) * units.get(spacing.unit, 1)


def _seasons_of(spacing: Spacing) -> list[int]:
    """Rows of the short and the long season, such as a day and a week; 0 where there is none."""
    step = _step_of(spacing)
    short, long = 0.0, 0.0
    if spacing.unit == "weekdays":
        short, long = 5 / float(spacing.step), _YEAR / step
    elif step < DAY / 2:
        short, long = DAY / step, _WEEK / step
    elif step <= 2 * DAY:
        short, long = _WEEK / step, _YEAR / step
    elif step <= _YEAR / 2:
        long = _YEAR / step
    return [rows if rows >= 2 else 0 for rows in (round(short), round(long))]
