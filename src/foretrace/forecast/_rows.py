"""Rows of numbers from the cells of a table: target, features and time stamp, or a sentence why not."""

import datetime
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from foretrace._checks import UserError
from foretrace.forecast._sources import Source

_UNKNOWN = frozenset({"", "nan", "na", "n/a", "null", "none", "?"})


class Row(NamedTuple):
    """One time of a stream.

    Attributes:
        time: its name, as in the source; empty where rows are counted.
        when: the same as a number, in seconds if it is a date; NaN where rows are counted.
        y: the target, NaN if unknown.
        x: the features, NaN where unknown.
        dated: whether the time is a date.
    """

    time: str
    when: float
    y: float
    x: tuple[float, ...]
    dated: bool


class Columns(NamedTuple):
    """The columns that are read; with `time=None` rows are counted."""

    target: str
    time: str | None
    features: tuple[str, ...]


def read_rows(source: Source, columns: Columns) -> Iterator[Row]:
    """Checks the heading of a source at once, and each row when it is asked for.

    Raises:
        UserError: at once if the source is empty or lacks a column, later at a cell that is wrong.
    """
    heading = source.columns()
    if not heading:
        raise UserError(
            f"data must have a heading and rows; got nothing in {source.name}; is it the right file?"
        )
    wanted = {"target": (columns.target,), "time": (columns.time,), "features": columns.features}
    for option, names in wanted.items():
        for column in names:
            if column is not None and column not in heading:
                raise UserError(
                    f"{option} must be among the columns {', '.join(heading)}; got {column!r}; choose one."
                )
    return _rows(source, columns)


def _rows(source: Source, columns: Columns) -> Iterator[Row]:
    empty = True
    wanted = [name for name in (columns.target, columns.time, *columns.features) if name]
    for place, cells in source.rows(wanted):
        empty = False
        time, when, dated = "", math.nan, False
        if columns.time is not None:
            time = str(cells.get(columns.time))
            when, dated = _when(place, columns.time, cells.get(columns.time))
        y = _number(place, columns.target, cells.get(columns.target))
        x = tuple(_number(place, feature, cells.get(feature)) for feature in columns.features)
        yield Row(time, when, y, x, dated)
    if empty:
        raise UserError(f"data must have rows; got only a heading in {source.name}; is it the right file?")


def _number(place: str, column: str, cell: Any) -> float:
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in _UNKNOWN):
        return math.nan
    try:
        value = float(cell)
    except (TypeError, ValueError):
        raise UserError(
            f"{column} must be a number or empty; got {cell!r} in {place}; repair it or choose others."
        ) from None
    if math.isinf(value):
        raise UserError(
            f"{column} must be finite or empty; got {cell!r} in {place}; leave it empty if it is unknown."
        )
    return value


def _when(place: str, column: str, cell: Any) -> tuple[float, bool]:
    """A time as a number, and whether it is a date."""
    if isinstance(cell, datetime.date):
        cell = cell.isoformat()
    try:
        value = float(cell)
        if math.isfinite(value):
            return value, False
    except (TypeError, ValueError):
        pass
    try:
        date = datetime.datetime.fromisoformat(str(cell).strip())
    except ValueError:
        raise UserError(
            f"{column} must be a date such as 2026-01-31 12:00 or a number; got {cell!r} in {place}; "
            "repair it, or leave --time out to count rows."
        ) from None
    # Without a zone the clock on the wall counts, not that of this computer.
    return (date if date.tzinfo else date.replace(tzinfo=datetime.UTC)).timestamp(), True
