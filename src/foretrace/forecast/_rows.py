"""Rows of a table, one by one: from a CSV, JSON lines or Parquet file, or as they arrive."""

import contextlib
import csv
import datetime
import io
import itertools
import json
import math
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from foretrace._checks import UserError

_UNKNOWN = frozenset({"", "nan", "na", "n/a", "null", "none", "?"})


class Row(NamedTuple):
    """One time of a stream.

    Attributes:
        time: its name, as it was written; empty where rows are to be counted.
        when: the same as a number, in seconds if it is a date; NaN where rows are to be counted.
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
    """Which columns of a table are what; `time` may be None, then rows are counted."""

    target: str
    time: str | None
    features: tuple[str, ...]


def read_rows(file: Path, columns: Columns) -> Iterator[Row]:
    """The rows of a file: Parquet or JSON lines by its extension, else CSV.

    Raises:
        ValueError: at once if it is missing or empty or lacks a column, later at a cell that is wrong.
    """
    if not file.is_file():
        raise UserError(f"data must be a file or - for standard input; got {str(file)!r}; check its name.")
    if file.suffix in (".parquet", ".pq"):
        return _checked(_parquet(file, columns), columns, file.name)
    text = file.open(encoding="utf-8-sig", newline="")
    if file.suffix in (".jsonl", ".ndjson", ".json"):
        return _checked(_json_lines(text, file.name), columns, file.name)
    return _checked(_csv(text, file.name), columns, file.name)


def follow_rows(stream: Any, columns: Columns) -> Iterator[Row]:
    """The rows of an open text file in CSV, as its lines arrive; raises as `read_rows` does."""
    return _checked(_csv(iter(stream.readline, ""), "standard input"), columns, "standard input")


def _csv(lines: Iterable[str], name: str) -> Generator[tuple[str, dict[str, Any]], None, None]:
    text = _text(lines, name)
    reader = csv.reader(text)
    try:
        header = next(reader, None)
        yield "", dict.fromkeys(header or ())
        for cells in reader:
            if not cells:
                continue
            where = f"line {reader.line_num} of {name}"
            if len(cells) != len(header or ()):
                raise UserError(
                    f"{where} must have {len(header or ())} cells, like the heading; got {len(cells)}; "
                    "repair it."
                )
            yield where, dict(zip(header or (), cells, strict=True))
    except csv.Error as error:
        raise UserError(f"{name} must be CSV; got {error}; is it another kind of file?") from None
    finally:
        text.close()


def _json_lines(lines: Iterable[str], name: str) -> Generator[tuple[str, dict[str, Any]], None, None]:
    first = True
    with contextlib.closing(_text(lines, name)) as text:
        for number, line in enumerate(text, start=1):
            if not line.strip():
                continue
            where = f"line {number} of {name}"
            try:
                found = json.loads(line)
            except ValueError:
                found = None
            if not isinstance(found, dict):
                raise UserError(f"{where} must be one JSON object; got {line.strip()[:40]!r}; repair it.")
            if first:
                first = False
                yield "", found
            yield where, found


def _parquet(file: Path, columns: Columns) -> Generator[tuple[str, dict[str, Any]], None, None]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError(
            f"data in Parquet needs the package pyarrow, which is not installed; got {file.name!r}; "
            "pip install 'foretrace[parquet]'."
        ) from None
    try:
        table = parquet.ParquetFile(file)
    except ArrowException as error:
        raise UserError(f"{file.name} must be Parquet; got {str(error).splitlines()[0]}.") from None
    names = table.schema_arrow.names
    yield "", dict.fromkeys(names)
    wanted = [name for name in (columns.target, columns.time, *columns.features) if name]
    count = itertools.count(1)
    for batch in table.iter_batches(columns=wanted):
        for found in batch.to_pylist():
            yield f"row {next(count)} of {file.name}", found


def _checked(
    rows: Generator[tuple[str, dict[str, Any]], None, None], columns: Columns, name: str
) -> Iterator[Row]:
    """Looks at the heading at once, and at every row when its turn comes."""
    _, heading = next(rows, ("", {}))
    if not heading:
        rows.close()
        raise UserError(f"data must have a heading and rows; got nothing in {name}; is it the right file?")
    wanted = {"target": (columns.target,), "time": (columns.time,), "features": columns.features}
    for option, names in wanted.items():
        for column in names:
            if column is not None and column not in heading:
                rows.close()
                raise UserError(
                    f"{option} must be among the columns {', '.join(heading)}; got {column!r}; choose one."
                )
    return _rows(rows, columns, name)


def _rows(
    rows: Generator[tuple[str, dict[str, Any]], None, None], columns: Columns, name: str
) -> Iterator[Row]:
    empty = True
    with contextlib.closing(rows):
        for where, cells in rows:
            empty = False
            time, when, dated = "", math.nan, False
            if columns.time is not None:
                time = str(cells.get(columns.time))
                when, dated = _when(where, columns.time, cells.get(columns.time))
            y = _number(where, columns.target, cells.get(columns.target))
            x = tuple(_number(where, feature, cells.get(feature)) for feature in columns.features)
            yield Row(time, when, y, x, dated)
    if empty:
        raise UserError(f"data must have rows; got only a heading in {name}; is it the right file?")


def _number(where: str, column: str, cell: Any) -> float:
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in _UNKNOWN):
        return math.nan
    try:
        value = float(cell)
    except (TypeError, ValueError):
        raise UserError(
            f"{column} must be a number or empty; got {cell!r} in {where}; repair it or choose others."
        ) from None
    if math.isinf(value):
        raise UserError(
            f"{column} must be finite or empty; got {cell!r} in {where}; leave it empty if it is unknown."
        )
    return value


def _when(where: str, column: str, cell: Any) -> tuple[float, bool]:
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
            f"{column} must be a date such as 2026-01-31 12:00 or a number; got {cell!r} in {where}; "
            "repair it, or leave --time out to count rows."
        ) from None
    # Without a zone the clock on the wall counts, not that of this computer.
    return (date if date.tzinfo else date.replace(tzinfo=datetime.UTC)).timestamp(), True


def _text(lines: Iterable[str], name: str) -> Generator[str, None, None]:
    try:
        for line in lines:
            if "\0" in line:
                raise UserError(f"{name} must be text; got a zero byte; is it another kind of file?")
            yield line
    except UnicodeDecodeError:
        raise UserError(
            f"{name} must be text in UTF-8; got other bytes; is it another kind of file?"
        ) from None
    finally:
        if isinstance(lines, io.TextIOBase):
            lines.close()
