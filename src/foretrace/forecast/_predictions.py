"""What predictions.csv holds, as arrays: for pictures and pages of a run that ended or still goes on."""

import collections
import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foretrace._checks import UserError, checked_path
from foretrace.forecast._stamps import StampReader, is_dated

_MOST = 2**27  # bytes that are read, the newest ones: about two million lines, four seconds
_FORM = 256  # stamps that decide on their form
_HORIZONS = 1000  # the largest horizon that there is


class Bounds(NamedTuple):
    """Forecasts with their intervals, (n,) each; NaN where there is none."""

    forecast: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


class Predictions(NamedTuple):
    """The rows of predictions.csv, n of them, and the forecasts of rows to come.

    Attributes:
        horizons: the nearest and the farthest horizon, or the only one.
        dated: whether times are dates, and not numbers.
        times: of each row, as its source writes it.
        when: (n,), times as numbers: of a date seconds since 1970 by the clock on the wall.
        actual: (n,), NaN where unknown.
        anomaly: (n,), score of each value, NaN where unknown.
        of: the forecasts of these rows, at each of `horizons`.
        ahead_times: of the rows to come, none while the run goes on.
        ahead_when: (m,), the same as numbers.
        ahead: (m,), forecasts of the rows to come.
        partial: whether there are older rows, which were not read.
    """

    horizons: tuple[int, ...]
    dated: bool
    times: list[str]
    when: np.ndarray
    actual: np.ndarray
    anomaly: np.ndarray
    of: dict[int, Bounds]
    ahead_times: list[str]
    ahead_when: np.ndarray
    ahead: Bounds
    partial: bool

    def without_past(self) -> "Predictions":
        """The same without forecasts of rows that have come since."""
        later = self.ahead_when > max(self.when[-1:], default=-np.inf)
        times = [time for time, is_later in zip(self.ahead_times, later, strict=True) if is_later]
        ahead = Bounds(*(column[later] for column in self.ahead))
        return self._replace(ahead_times=times, ahead_when=self.ahead_when[later], ahead=ahead)


def read_predictions(path: Path, ahead: Sequence[str] = ()) -> Predictions:
    """Reads the newest rows of the file that a forecast writes; half a line at its end is left out.

    Args:
        path: the file.
        ahead: lines with forecasts of rows to come, which count while the file has none itself and as far
            as their time is later than that of its last row.

    Raises:
        UserError: there is no such file, or not one forecast in it.
    """
    with checked_path("run", path.parent, "a folder of foretrace forecast", "give that of a forecast"):
        lines, partial = _newest_lines(path)
    try:
        last = [line for line in csv.reader(lines[-_HORIZONS:]) if len(line) == 7]
        farthest = max((int(line[1]) for line in last), default=0)
        own = _to_come(last, farthest)
        wanted = {"1", str(farthest)}
        came = csv.reader(lines[: len(lines) - len(own)])
        cells = [line for line in came if len(line) == 7 and line[1] in wanted]
        if not cells and not own:
            raise UserError(
                "run must have forecasts; got one whose predictions.csv has none; wait for its second row."
            )
        rows = _arrays(cells, own or list(csv.reader(ahead)), farthest, partial)
        return rows if own else rows.without_past()
    except UserError:
        raise
    except ValueError as error:
        raise UserError(
            f"predictions.csv must be as foretrace forecast wrote it; got a line in {str(path.parent)!r} "
            f"that is none ({error}); make the run anew."
        ) from None


def read_fleet(path: Path, rows: int) -> dict[str, Predictions]:
    """The newest rows of each series of the file that a forecast of many series writes.

    Args:
        path: the file.
        rows: how many of each series, at most.

    Returns:
        Per series its rows, at the nearest and the farthest horizon, in the order in which they first come.
    """
    lines, partial = _newest_lines(path)
    farthest = max((int(line[2]) for line in csv.reader(lines[-_HORIZONS:]) if len(line) == 8), default=1)
    wanted = {"1", str(farthest)}
    came: dict[str, collections.deque[list[str]]] = {}
    last: dict[str, collections.deque[list[str]]] = {}
    for line in csv.reader(lines):
        if len(line) != 8:
            continue
        name, cells = line[0], line[1:]
        if name not in came:
            came[name] = collections.deque(maxlen=len(wanted) * (rows + farthest))
            last[name] = collections.deque(maxlen=farthest)
        if cells[1] in wanted:
            came[name].append(cells)
        last[name].append(cells)
    result = {}
    for name, cells in came.items():
        own = _to_come(list(last[name]), farthest)
        ends = len(cells) - sum(line[1] in wanted for line in own)
        result[name] = _arrays(list(cells)[:ends], own, farthest, partial)
    return result


def write_parquet(path: Path) -> Path:
    """Writes the table of a CSV file as Parquet beside it, whole or not at all; times as such, if all are.

    Args:
        path: predictions.csv.

    Returns:
        The new file.
    """
    from pyarrow import ArrowInvalid, csv, parquet

    target = path.with_suffix(".parquet")
    part = target.with_suffix(".parquet.part")
    numbers = dict.fromkeys(("prediction", "lower", "upper", "actual", "anomaly"), "float64")
    columns = {"series": "string", "horizon": "int32"} | numbers

    def write(others: dict[str, str]) -> None:
        options = csv.ConvertOptions(
            column_types=columns | others, null_values=[""], strings_can_be_null=True
        )
        with (
            csv.open_csv(path, convert_options=options) as reader,
            parquet.ParquetWriter(part, reader.schema) as writer,
        ):
            for batch in reader:
                writer.write_batch(batch)

    try:
        write({})
    except ArrowInvalid:  # a later time is not like the first ones
        write({"time": "string"})
    os.replace(part, target)
    return target


def _newest_lines(path: Path) -> tuple[list[str], bool]:
    """The whole lines at the end of the file without its heading, and whether there are others before."""
    with path.open("rb") as file:
        file.readline()
        start = max(file.tell(), path.stat().st_size - _MOST)
        partial = start > file.tell()
        file.seek(start)
        if partial:
            file.readline()  # the rest of a line
        text = file.read(2 * _MOST)
    return text[: text.rfind(b"\n") + 1].decode("utf-8", "replace").splitlines(keepends=True), partial


def _to_come(lines: list[list[str]], farthest: int) -> list[list[str]]:
    """Of the last lines those of rows to come: one for each horizon, without a value."""
    last = lines[-farthest:]
    if [int(line[1]) for line in last] != [*range(1, farthest + 1)] or any(line[5] for line in last):
        return []
    # Of one row that has no value all lines have the same time; times to come may be unknown.
    is_one_row = farthest > 1 and last[0][0] == last[-1][0] != ""
    return [] if is_one_row else last


def _arrays(lines: list[list[str]], to_come: list[list[str]], farthest: int, partial: bool) -> Predictions:
    horizons = tuple(sorted({1, farthest}))
    rows = [line for line in lines if line[1] == "1"]
    places = {h: list(_places(lines, str(h))) for h in horizons}
    of = {h: Bounds(*np.full((3, len(rows)), np.nan)) for h in horizons}
    for h, pairs in places.items():
        for column, name in zip(of[h], (2, 3, 4), strict=True):
            column[[row for row, _ in pairs]] = _numbers([line[name] for _, line in pairs])
    times, ahead_times = [line[0] for line in rows], [line[0] for line in to_come]
    when, dated = _when([*times, *ahead_times])
    return Predictions(
        horizons=horizons,
        dated=dated,
        times=times,
        when=when[: len(times)],
        actual=_numbers([line[5] for line in rows]),
        anomaly=_numbers([line[6] for line in rows]),
        of=of,
        ahead_times=ahead_times,
        ahead_when=when[len(times) :],
        ahead=Bounds(*(_numbers([line[name] for line in to_come]) for name in (2, 3, 4))),
        partial=partial,
    )


def _places(lines: list[list[str]], horizon: str) -> Iterator[tuple[int, list[str]]]:
    """The lines of one horizon, each with the number of its row: a row begins with its first horizon."""
    row = -1
    for line in lines:
        row += line[1] == "1"
        if line[1] == horizon and row >= 0:
            yield row, line


def _numbers(cells: Sequence[str]) -> np.ndarray:
    return np.array([float(cell or "nan") for cell in cells])


def _when(times: Sequence[str]) -> tuple[np.ndarray, bool]:
    """Times as numbers, and whether they are dates; numbers of rows where one cannot be read."""
    reader = StampReader()
    reader.look_ahead(times[:_FORM])
    stamps = [reader(time) for time in times]
    if None in stamps:
        return np.arange(1.0, len(times) + 1), False
    return np.array([float(stamp.wall) for stamp in stamps if stamp]), is_dated(reader.form)
