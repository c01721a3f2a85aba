"""The step from one time stamp to the next: one robust number, in units of the calendar if it has any."""

import calendar
import collections
import datetime
import itertools
import statistics
from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import Literal, NamedTuple

DAY = 86400
EPOCH = datetime.date(1970, 1, 1).toordinal()
_MOST = 0.75  # share of the stamps that a unit of the calendar must fit


class Stamp(NamedTuple):
    """A time: a number, or for a date seconds since 1970.

    Attributes:
        when: the number; of a date without a zone, by the clock on the wall.
        offset: seconds by which the clock on the wall is ahead of UTC; None if the stamp does not say.
    """

    when: Decimal
    offset: int | None

    @property
    def wall(self) -> Decimal:
        """The time by the clock on the wall."""
        return self.when + (self.offset or 0)

    @property
    def date(self) -> datetime.date:
        """The date by the clock on the wall."""
        return datetime.date.fromordinal(EPOCH + split(self.wall, DAY)[0])


def stamp_of(date: datetime.date) -> Stamp:
    """A date, or a time of one, as a stamp."""
    seconds = (date.toordinal() - EPOCH) * DAY
    if not isinstance(date, datetime.datetime):
        return Stamp(Decimal(seconds), None)
    wall = Decimal(seconds + 3600 * date.hour + 60 * date.minute + date.second)
    if date.microsecond:
        wall += Decimal(date.microsecond).scaleb(-6)
    ahead = date.utcoffset()
    offset = None if ahead is None else round(ahead.total_seconds())
    return Stamp(wall - offset if offset else wall, offset)


class Spacing(NamedTuple):
    """A step.

    Attributes:
        unit: "numbers" and seconds of "instants"; seconds by the wall clock in steps of whole "days";
            "weekdays", which leave Saturdays and Sundays out; "months".
        step: how many of them.
        day: day of the month, 31 for the last one; 0 in other units.
    """

    unit: Literal["numbers", "instants", "days", "weekdays", "months"]
    step: Decimal
    day: int = 0

    def slots(self, before: Stamp, now: Stamp) -> float:
        """How many steps lie between two stamps."""
        return float((self._place(now) - self._place(before)) / self.step)

    def after(self, stamp: Stamp, steps: int) -> Stamp:
        """The stamp so many steps later.

        Raises:
            ValueError, OverflowError: there is no such date.
        """
        if self.unit == "weekdays":
            date = stamp.date
            weeks, weekday = divmod(min(date.weekday(), 4) + steps * int(self.step), 5)
            days = 7 * weeks + weekday - date.weekday()
            return stamp._replace(when=stamp.when + DAY * days)
        if self.unit == "months":
            date = stamp.date
            year, month = divmod(12 * date.year + date.month - 1 + steps * int(self.step), 12)
            day = min(self.day, calendar.monthrange(year, month + 1)[1])
            days = datetime.date(year, month + 1, day).toordinal() - date.toordinal()
            return stamp._replace(when=stamp.when + DAY * days)
        return stamp._replace(when=stamp.when + steps * self.step)

    def _place(self, stamp: Stamp) -> Decimal:
        """Where a stamp is, counted in the unit."""
        if self.unit == "days":
            return stamp.wall
        if self.unit == "weekdays":
            weeks, weekday = divmod(stamp.date.toordinal() - 1, 7)
            return 5 * weeks + min(weekday, 5) + split(stamp.wall, DAY)[1] / DAY * (weekday < 5)
        if self.unit == "months":
            date = stamp.date
            return 12 * date.year + date.month + Decimal(date.day) / 31
        return stamp.when


def split(number: Decimal, unit: int) -> tuple[int, Decimal]:
    """How many whole units a number has, and the rest, which is not negative; Decimal's own // is."""
    whole = int((number / unit).to_integral_value(ROUND_FLOOR))
    return whole, number - whole * unit


def spacing_of(stamps: Sequence[Stamp], dated: bool) -> Spacing | None:
    """The usual step of stamps, most of which rise; None if no two of them do.

    It is the median, so that stray stamps, gaps and jitter do not move it.
    """
    rising = [stamps[0]] if stamps else []
    for stamp in stamps[1:]:
        if stamp.when > rising[-1].when:
            rising.append(stamp)
    if len(rising) < 2:
        return None
    if not dated:
        return Spacing("numbers", _median([stamp.when for stamp in rising]))
    try:
        return _calendar_spacing(rising) or Spacing("instants", _median([s.when for s in rising]))
    except (ValueError, OverflowError):  # an epoch beyond all calendars
        return Spacing("instants", _median([stamp.when for stamp in rising]))


def _calendar_spacing(stamps: Sequence[Stamp]) -> Spacing | None:
    """The step in whole days, weekdays or months, if most of the stamps are at the same time of the day."""
    step = _median([stamp.wall for stamp in stamps])
    if step < DAY:
        return None
    times = collections.Counter(split(stamp.wall, DAY)[1] for stamp in stamps)
    if max(times.values()) < _MOST * len(stamps):
        return None
    dates = [stamp.date for stamp in stamps]
    if step >= 27 * DAY:
        usual = collections.Counter(date.day for date in dates).most_common(1)[0][0]
        for day in (31, usual):
            ends = (calendar.monthrange(date.year, date.month)[1] for date in dates)
            fit = sum(date.day == min(day, end) for date, end in zip(dates, ends, strict=True))
            if fit >= _MOST * len(dates):
                months = _median([Decimal(12 * date.year + date.month) for date in dates])
                return Spacing("months", max(months, Decimal(1)), day)
    if step % DAY:
        return None
    weekdays = [date.weekday() for date in dates]
    weekends = [b - a for a, b in itertools.pairwise(dates) if a.weekday() == 4]
    if step == DAY and len(dates) >= 5 and max(weekdays) < 5 and datetime.timedelta(3) in weekends:
        return Spacing("weekdays", Decimal(1))
    return Spacing("days", step)


def _median(places: Sequence[Decimal]) -> Decimal:
    return statistics.median_low(b - a for a, b in itertools.pairwise(places))
