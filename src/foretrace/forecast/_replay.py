"""Rows of a live source that come again when a run is resumed, as from `tail -n +1`."""

import dataclasses
from collections.abc import Iterator
from decimal import Decimal

from foretrace.forecast._rows import Row

_KEYS = 1000  # rows of one time that are known again where the source begins among them


@dataclasses.dataclass
class Replay:
    """Tells the rows that were learned from new ones by their times; everything in it is JSON.

    A row of an earlier time than that of the last row was learned, and so were as many rows of the same
    time as were learned before, or those that are equal. Without times that rise, no row is known again.

    Attributes:
        mark: time of the last row, empty before there was one.
        keys: of the last rows that were learned at that time.
        count: rows that were learned at that time.
        rows: rows with a time.
        falls: of these, those whose time lies before that of the row before.
        skipped: rows that came again.
    """

    mark: str = ""
    keys: list = dataclasses.field(default_factory=list)
    count: int = 0
    rows: int = 0
    falls: int = 0
    skipped: int = 0

    def learned(self, row: Row) -> None:
        """Takes note of a row."""
        if row.mark is None:
            return
        if str(row.mark) != self.mark:
            self.falls += bool(self.mark) and row.mark < Decimal(self.mark)
            self.mark, self.keys, self.count = str(row.mark), [], 0
        self.rows, self.count = self.rows + 1, self.count + 1
        self.keys = [*self.keys, row.key][-_KEYS:]

    def new(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows without those at the beginning that were learned."""
        rises = self.mark and 20 * self.falls <= self.rows  # a clock goes back twice a year
        last, count, keys = Decimal(self.mark or 0), self.count, list(self.keys)
        began_earlier = False
        for row in rows:
            if not rises or row.mark is None or row.mark > last:
                yield row
                break
            if row.mark < last:
                began_earlier = True
            elif began_earlier and count > 0:
                count -= 1
            elif began_earlier or row.key not in keys:
                yield row
                break
            self.skipped += 1
        yield from rows
