"""Time stamps that should come at equal steps: gaps, repetitions, and stamps to come."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from foretrace._checks import UserError
from foretrace.forecast._calendar import Calendar
from foretrace.forecast._rows import Row
from foretrace.forecast._spacing import Spacing, Stamp, spacing_of
from foretrace.forecast._stamps import FORMS, is_dated, read, write

_WINDOW = 65  # stamps that the step is the median of
_FREE = 100  # rows that may be filled in before their number is compared with that of the rows
_STRAY = 0.1  # steps after a row, within which another one is a repetition
_HOUR = 3600


@dataclasses.dataclass
class Clock:
    """Where a stream is in time; everything in it is JSON.

    Attributes:
        gaps: "stop" at a gap or repetition, "fill" gaps with unknown values and drop repetitions, or
            "ignore" both.
        last: the last stamp, as the source writes it.
        form: the form of the stamps; empty where rows are counted.
        recent: the last stamps that rose.
        rows: rows so far, without those that were filled in.
        filled: times that were filled in.
        dropped: rows that were dropped.
        changes: changes of the clock to summer time and back.
        calendar: what the dates say of a row.
    """

    gaps: str = "stop"
    last: str = ""
    form: str = ""
    recent: list = dataclasses.field(default_factory=list)
    rows: int = 0
    filled: int = 0
    dropped: int = 0
    changes: int = 0
    calendar: Calendar = dataclasses.field(default_factory=Calendar)

    @classmethod
    def of(cls, record: dict[str, Any], gaps: str) -> "Clock":
        """Inverse of `dataclasses.asdict`, with a choice about gaps that may be another."""
        return cls(**record | {"gaps": gaps, "calendar": Calendar(**record["calendar"])})

    def __post_init__(self):
        self._read_again()

    def look_ahead(self, rows: Sequence[Row]) -> None:
        """Takes note of the stamps of rows that come next: the step is right from the first one on."""
        self.recent, self._stamps = self.recent[-_WINDOW:], self._stamps[-_WINDOW:]
        for row in rows:
            if row.form != self.form:
                self.form = row.form
                self._read_again()
            if row.form and not (self._stamps and row.when <= self._stamps[-1].when):
                self.recent.append(row.time)
                self._stamps.append(Stamp(row.when, row.offset))
        self._spacing = spacing_of(self._stamps, is_dated(self.form))

    def tick(self, row: Row) -> Iterator[Row]:
        """The row, with rows of unknown values before it where time went on without any.

        Raises:
            UserError: at a gap or repetition, if that is wanted.
        """
        if not row.form:
            row = row._replace(time=self.ahead(1))
        elif self.last and self.gaps != "ignore":
            missing = self._missing(row)
            if missing < 0:
                self.dropped += 1
                return
            for index in range(1, missing + 1):
                when = self._spacing.after(self._before, index).when if self._spacing else row.when
                unknown = (math.nan,) * len(row.x)
                yield Row(self.ahead(index), when, math.nan, unknown, row.form, row.offset)
            self.filled += missing
        self.last, self.rows = row.time, self.rows + 1
        self._before = Stamp(row.when, row.offset)
        yield row

    def ahead(self, steps: int) -> str:
        """The name of the time so many usual steps after the last one; empty if that is unknown."""
        if not self.form:
            return str(int(self.last or 0) + steps)
        try:
            spacing = self._spacing or Spacing("numbers", Decimal(1))
            if not self._spacing and is_dated(self.form):
                return ""
            stamp = spacing.after(self._before, steps)
            return write(stamp, self.form, [self.last, *self.recent])
        except (ValueError, OverflowError):
            return ""

    def _missing(self, row: Row) -> int:
        """How many rows are missing before this one; -1 if it is to be dropped."""
        before, now = self._before, Stamp(row.when, row.offset)
        if self._is_clock_change(before, now):
            self.changes += 1
            return 0
        if now.when <= before.when:
            if self.gaps == "fill":
                return -1
            raise UserError(
                f"time must rise from row to row; got {row.time} after {self.last}; repair the data, "
                "or go on with --gaps fill, which drops such rows, or --gaps ignore."
            )
        slots = self._spacing.slots(before, now) if self._spacing else 1
        if slots < _STRAY and self.gaps == "fill":  # its place in time is taken
            return -1
        missing = max(0, round(slots) - 1)
        # In the place of a row that could not be read, its time counts.
        if missing > row.skipped and self.gaps == "stop":
            raise UserError(
                f"time must go on in equal steps; got {row.time} after {self.last}, {missing} missing; "
                "repair the data, or go on with --gaps fill, which lets the model say what is missing, "
                "or --gaps ignore."
            )
        if self.filled + missing > _FREE + self.rows:
            raise UserError(
                f"time must go on in equal steps; got {row.time} after {self.last}, {missing:,} missing; "
                f"{self.filled + missing:,} would be filled in among {self.rows:,} rows, too many: "
                "repair the data, or go on with --gaps ignore."
            )
        return missing

    def _is_clock_change(self, before: Stamp, now: Stamp) -> bool:
        """Whether a clock without a zone went to summer time or back: an hour, on a Sunday night."""
        if self._spacing is None or self._spacing.unit != "instants" or self._spacing.step > _HOUR:
            return False
        passed = now.when - before.when - self._spacing.step
        if now.offset is not None or abs(abs(passed) - _HOUR) > self._spacing.step / 2:
            return False
        is_at_night = now.when % (24 * _HOUR) < 4 * _HOUR
        return is_at_night and now.date.weekday() == 6 and now.date.month in (3, 4, 9, 10, 11)

    def _read_again(self) -> None:
        """Finds the stamps of the texts, after these were saved or their form turned out to be another."""
        self._stamps = [_stamp(text, self.form) for text in self.recent]
        self._spacing = spacing_of(self._stamps, is_dated(self.form))
        self._before = _stamp(self.last, self.form) if self.form and self.last else Stamp(Decimal(0), None)


def _stamp(text: str, form: str) -> Stamp:
    """A stamp that was read before, perhaps in another form than the newest one."""
    return next(stamp for each in (form, *FORMS) if each and (stamp := read(text, each)))
