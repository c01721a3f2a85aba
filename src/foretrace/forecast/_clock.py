"""Time stamps that should come at equal steps: gaps and repetitions."""

import dataclasses
import datetime
import math
from collections.abc import Iterator

from foretrace._checks import UserError
from foretrace.forecast._rows import Row


@dataclasses.dataclass
class Clock:
    """Where a stream is in time; everything in it is JSON.

    Attributes:
        gaps: "stop" at a gap or repetition, "fill" gaps with unknown values and drop repetitions, or
            "ignore" both.
        last: name of the last time.
        when: the last time as a number, None before there was one.
        step: the usual step, 0 before there were two times.
        dated: whether times are dates.
        filled: times that were filled in.
        dropped: rows that were dropped.
    """

    gaps: str = "stop"
    last: str = ""
    when: float | None = None
    step: float = 0.0
    dated: bool = False
    filled: int = 0
    dropped: int = 0

    def tick(self, row: Row) -> Iterator[Row]:
        """The row, with rows of unknown values before it where time went on without any.

        Raises:
            ValueError: at a gap or repetition, if that is wanted.
        """
        if not row.time:
            count = int(self.when or 0) + 1
            row = row._replace(time=str(count), when=float(count))
        passed = math.inf if self.when is None else row.when - self.when
        if passed <= 0 and self.gaps != "ignore":
            if self.gaps == "stop":
                raise UserError(
                    f"time must rise from row to row; got {row.time} after {self.last}; repair the data, "
                    "or go on with --gaps fill, which drops such rows, or --gaps ignore."
                )
            self.dropped += 1
            return
        # A month has 28 to 31 days: no step is missing before it is nearly twice as long.
        missing = round(passed / self.step) - 1 if self.step and passed > 1.9 * self.step else 0
        if missing and self.gaps == "stop":
            raise UserError(
                f"time must go on in equal steps; got {row.time} after {self.last}, {missing} missing; "
                "repair the data, or go on with --gaps fill, which lets the model say what is missing, "
                "or --gaps ignore."
            )
        if missing and self.gaps == "fill":
            if missing > 100_000:
                raise UserError(
                    f"time must go on in equal steps; got {row.time} after {self.last}, {missing:,} "
                    "missing; that is too much to fill: repair the data, or go on with --gaps ignore."
                )
            for index in range(1, missing + 1):
                yield Row(self.ahead(index), row.when, math.nan, (math.nan,) * len(row.x), row.dated)
            self.filled += missing
        if self.when is not None and passed > 0 and not missing:
            self.step = passed if not self.step else min(self.step, passed)
        self.last, self.when, self.dated = row.time, row.when, row.dated
        yield row

    def ahead(self, steps: int) -> str:
        """The name of the time so many usual steps after the last one."""
        if self.when is None:
            return str(steps)
        if not self.dated:
            return f"{self.when + steps * (self.step or 1):.12g}"
        try:
            date = datetime.datetime.fromisoformat(self.last.strip()) + datetime.timedelta(
                seconds=steps * self.step
            )
        except (ValueError, OverflowError):
            return ""
        return date.isoformat(sep="T" if "T" in self.last else " ")
