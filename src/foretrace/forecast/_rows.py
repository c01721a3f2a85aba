"""Rows of numbers from the cells of a table: target, features and time stamp, or a sentence why not."""

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from foretrace._checks import UserError
from foretrace.forecast._columns import Columns
from foretrace.forecast._numbers import NumberReader
from foretrace.forecast._sources import CsvSource, JsonLinesSource, Source
from foretrace.forecast._spacing import Stamp
from foretrace.forecast._stamps import StampReader, is_dated

_AHEAD = 256  # rows whose stamps decide on their form; of a live source, the first one


class Row(NamedTuple):
    """One time of a stream.

    Attributes:
        time: its stamp, as in the source; empty where rows are counted.
        when: the same as a number, in seconds if it is a date; NaN where rows are counted.
        y: the target, NaN if unknown.
        x: the features, NaN where unknown.
        form: the form of the stamp; empty where rows are counted.
        offset: seconds by which the wall clock of a stamp with a zone is ahead of UTC, else None.
        skipped: rows just before it that could not be read.
        mark: of a live source, a number that rises with its rows, if it has one.
        key: of a live source, the same for rows with the same cells.
        series: name of its series; empty where there is only one.
    """

    time: str
    when: Decimal
    y: float
    x: tuple[float, ...]
    form: str = ""
    offset: int | None = None
    skipped: int = 0
    mark: Decimal | None = None
    key: str = ""
    series: str = ""

    @property
    def dated(self) -> bool:
        """Whether the time is a date."""
        return is_dated(self.form)


class RowReader(Iterator[Row]):
    """Rows from the cells of a source, whose heading is checked at once.

    Attributes:
        columns: the columns that are read.
        heading: names of all columns.
        form: the form of the time stamps; empty until it is known.
        bad: rows so far that could not be read, in whole or in part.
    """

    def __init__(
        self,
        source: Source,
        columns: Columns,
        *,
        on_bad: Literal["stop", "skip"] = "stop",
        heading: Sequence[str] = (),
    ):
        self._source, self._on_bad = source, on_bad
        self._notes: list[str] = []
        self.heading = list(source.columns())
        if not self.heading:
            raise UserError(
                f"data must have a heading and rows; got nothing in {source.name}; is it the right file?"
            )
        self.columns = columns = columns.among(self.heading)
        if isinstance(source, CsvSource) and not set(columns.names) <= set(self.heading):
            self._do_without_heading(source, heading)
        columns.check(self.heading)
        self.bad = 0
        self._stamps, self._marks, self._mark_column = StampReader(), StampReader(), ""
        delimiter = source.delimiter if isinstance(source, CsvSource) else ","
        if delimiter != ",":
            name = {"\t": "tabs", ";": "semicolons", "|": "bars"}.get(delimiter, repr(delimiter))
            self._notes.append(f"{name} lie between the cells")
        self._number = NumberReader(is_comma_between_cells=delimiter == ",")
        self._rows = self._read()

    @property
    def form(self) -> str:
        """The form of the time stamps; empty until it is known."""
        return self._stamps.form

    @form.setter
    def form(self, form: str) -> None:
        self._stamps.form = form

    @property
    def notes(self) -> list[str]:
        """What was taken where there was a choice, in sentences."""
        notes = list(self._notes)
        if self._number.mark == ",":
            notes.append("commas are decimal marks")
        if self._stamps.is_ambiguous:
            notes.append(f"times are taken for {self.form}; the data would allow another order")
        if self._rest:
            notes.append(
                f"the last line, {self._rest[:40]!r}, has no end and is not learned: once it has one, go "
                "on with --resume"
            )
        return notes

    @property
    def _rest(self) -> str:
        """What was written of a last line without an end."""
        return (
            self._source.lines.rest.strip() if isinstance(self._source, CsvSource | JsonLinesSource) else ""
        )

    def __next__(self) -> Row:
        """Reads the next row that can be read, or says what is the matter with it."""
        return next(self._rows)

    def _do_without_heading(self, source: CsvSource, known: Sequence[str]) -> None:
        """Where the first line is a row, names its columns as before or, if that is clear, as wanted."""
        cells, columns = self.heading, self.columns
        forms = [StampReader() for _ in cells]
        stamps = [reader(cell) is not None for reader, cell in zip(forms, cells, strict=True)]
        dates = [i for i, reader in enumerate(forms) if stamps[i] and is_dated(reader.form)]
        numbers = [i for i, is_stamp in enumerate(stamps) if is_stamp and i not in dates]
        if not dates and len(numbers) < len(cells):
            return  # a heading of other names; some may be numbers
        if len(known) == len(cells):
            names = list(known)
        elif len(numbers) == 1 and not columns.features and (columns.time is None or len(dates) == 1):
            names = [f"column {i}" for i in range(1, len(cells) + 1)]
            names[numbers[0]] = columns.target
            if columns.time:
                names[dates[0]] = columns.time
            self._notes.append(
                f"no heading came: {columns.target} is taken to be column {numbers[0] + 1}, the only one "
                "of numbers"
            )
        else:
            raise UserError(
                f"data must begin with a heading, the names of the columns; got {','.join(cells)!r}; "
                "send the heading too, as tail -n +1 -F FILE does."
            )
        source.begin_without_heading(names)
        self.heading = names

    def _read(self) -> Iterator[Row]:
        rows = iter(self._source.rows(self.columns.names))
        first = list(itertools.islice(rows, 1 if self._source.is_live else _AHEAD))
        if not first:
            if self._rest:
                return  # a row is being written
            raise UserError(
                f"data must have rows; got only a heading in {self._source.name}; is it the right file?"
            )
        if self.columns.time:
            cells = [cells for _, cells in first if not isinstance(cells, UserError)]
            self._stamps.look_ahead([_text(each.get(self.columns.time)) for each in cells])
        skipped = 0
        for place, cells in itertools.chain(first, rows):
            try:
                if isinstance(cells, UserError):
                    raise cells
                row = self._row(place, cells)
                yield row._replace(skipped=skipped) if skipped else row
                skipped = 0
            except UserError as error:
                if self._on_bad == "stop":
                    raise UserError(f"{str(error).rstrip('.')}, or go on with --on-bad skip.") from None
                self.bad += 1
                skipped += 1

    def _row(self, place: str, cells: Mapping[str, Any]) -> Row:
        columns = self.columns
        text, stamp = "", Stamp(Decimal("NaN"), None)
        if columns.time is not None:
            text = _text(cells.get(columns.time))
            stamp = self._stamps(text)
            if stamp is None:
                raise UserError(
                    f"{columns.time} must be a date such as 2026-01-31 12:00 or a number; got {text!r} in "
                    f"{place}; repair it, or leave --time out to count rows"
                )
        garbled = False
        numbers = []
        for name in (columns.target, *columns.features):
            try:
                numbers.append(self._number(cells.get(name), name, place))
            except UserError:
                # The row keeps its place in time.
                if self._on_bad == "stop":
                    raise
                numbers.append(math.nan)
                garbled = True
        self.bad += garbled
        row = Row(text, stamp.when, numbers[0], tuple(numbers[1:]), self.form, stamp.offset)
        if columns.series is not None:
            row = row._replace(series=_text(cells.get(columns.series)))
        if self._source.is_live:
            key = hashlib.sha256(repr(sorted(cells.items())).encode("utf-8", "replace")).hexdigest()[:16]
            row = row._replace(mark=self._mark(row, cells), key=key)
        return row

    def _mark(self, row: Row, cells: Mapping[str, Any]) -> Decimal | None:
        """The time of a row of a live source, or its first date: by it, rows are known again."""
        if row.form:
            return row.when
        others = [name for name in cells if name not in self.columns.names]
        for name in [self._mark_column] if self._mark_column else others:
            stamp = self._marks(_text(cells.get(name)))
            if stamp and is_dated(self._marks.form):
                self._mark_column = name
                return stamp.when
        return None


def read_rows(source: Source, columns: Columns) -> RowReader:
    """Checks the heading of a source at once, and each row when it is asked for.

    Raises:
        UserError: at once if the source is empty or lacks a column, later at a cell that is wrong.
    """
    return RowReader(source, columns)


def _text(cell: Any) -> str:
    return str(cell).strip()
