"""Forecasts of many series of one table, side by side: each has weights, a state and a clock of its own."""

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np

from foretrace import stream
from foretrace._checks import UserError
from foretrace.forecast._clock import Clock
from foretrace.forecast._forecasts import Forecasts
from foretrace.forecast._members import Member, SeriesScore, score_of, to_cell
from foretrace.forecast._row_forecast import Ahead, RowForecast, calendar_of, row_forecast, season_for
from foretrace.forecast._rows import Row
from foretrace.forecast._scores import HEADING, Score, ScoreKeeper
from foretrace.forecast._side_by_side import TOGETHER, SideBySide
from foretrace.runs import checkpoint
from foretrace.runs._config import read_config

_LISTED = 3  # series that do best and worst in the summary


class FleetForecasts(Forecasts):
    """Iterator over the forecasts of every series of one source; made by `forecast_file(series=..)`."""

    _rows_at_once = 8192

    @property
    def series(self) -> list[str]:
        """Names of the series so far, in the order in which they came."""
        return [member.name for member in self._members]

    def ahead(self, series: str | None = None) -> list[Ahead]:
        """The forecasts of the rows after the newest one of a series, or of that of the newest row."""
        member = self._newest if series is None else self._by_name[series]
        return member.ahead() if member else []

    def line_of(self, ahead: Ahead) -> str:
        """Series, time, horizon, forecast and bounds for the series of the newest row, as CSV."""
        return self._newest.line_of(ahead) if self._newest else ""

    def scores(self, series: str | None = None) -> list[Score]:
        """The errors of a series at every horizon; unless given, those of the series of the newest row."""
        member = self._newest if series is None else self._by_name[series]
        return member.keeper.scores() if member and member.keeper else []

    def table(self) -> list[SeriesScore]:
        """How well each series is forecast at the farthest horizon that it has come to."""
        return [score_of(member) for member in self._members]

    def experts(self) -> dict[str, float]:
        """The weight of each expert in the forecast one row ahead, the mean over all series."""
        return self._models.weights(len(self._members))

    def summary(self) -> list[str]:
        """How many series are forecast how well, which best and worst, and what was unusual."""
        rows = sum(member.keeper.rows for member in self._members if member.keeper)
        kilobytes = self._models.bytes_each / 1e3
        lines = [
            f"{rows:,} rows of {len(self._members):,} series, each {kilobytes:,.0f} kB of memory",
        ]
        known = sorted((each for each in self.table() if not math.isnan(each.ratio)), key=lambda s: s.ratio)
        if known:
            better = sum(each.ratio < 1 for each in known) / len(known)
            middle = 1 - statistics.median(each.ratio for each in known)
            inside = sum(sum(m.keeper.inside) for m in self._members if m.keeper)
            counts = sum(sum(m.keeper.counts) for m in self._members if m.keeper)
            lines += [
                f"{self._settings.horizon} ahead: better than persistence in {better:.0%} of the series, "
                f"by {middle:.1%} in the middle one",
                *([f"{inside / counts:.1%} of all values were inside the interval"] if counts else []),
                f"error beside that of persistence, best: {_listed(known[:_LISTED])}",
                f"error beside that of persistence, worst: {_listed(known[: -_LISTED - 1 : -1])}",
            ]
        return [*lines, *self.irregularities()]

    def irregularities(self) -> list[str]:
        """What was unusual about the data, in sentences."""
        clocks = [member.clock for member in self._members]
        counts = {
            "values were unknown; the forecast stood in for them": sum(
                member.keeper.unknown for member in self._members if member.keeper
            ),
            "of these times were missing in the data": sum(clock.filled for clock in clocks),
            "rows repeated a time and were dropped": sum(clock.dropped for clock in clocks),
            "rows could not be read, or not all of their cells": self._bad_before + self._reader.bad,
            "rows had been learned before and were skipped": self._skipped,
        }
        lines = [f"{count:,} {words}" for words, count in counts.items() if count]
        return [*lines, *self._reader.notes]

    def take_over(self, parts: Sequence[Path]) -> None:
        """Goes on with the models of all parts of this fleet, and with what they forecast.

        Args:
            parts: run folders, one for each `share` of the series; those of no series are left out.

        Raises:
            UserError: they are not equally far.
        """
        newest = ((part, checkpoint.newest_info(part / "checkpoints")) for part in parts)
        infos = [(part, info) for part, info in newest if info is not None]
        ends = {(info["record"]["step"], info["record"]["rows_sha256"]) for _, info in infos}
        if len(ends) > 1:
            raise UserError(
                f"gather must be parts that have learned the same rows; got some after "
                f"{min(step for step, _ in ends):,} and some after {max(step for step, _ in ends):,}; let "
                "all come to the end of the data."
            )
        series = []
        for part, info in infos:
            record, like = info["record"], self._models.like(len(info["record"]["series"]))
            states = checkpoint.restore(part / "checkpoints", like).tree
            share = (read_config(part) or {}).get("share", (0, 1))
            for number, each in enumerate(record["series"]):
                series.append((_place_of(number, *share), each, states, number))
            if self._folder:
                lines = (part / self._folder.metrics.name).read_bytes()[: info["metrics"]["bytes"]]
                self._folder.write(lines.decode().partition("\n")[2])
        # In the order and the places in which one process would have them: its numbers, bit for bit.
        for place, (_, each, states, number) in enumerate(sorted(series, key=lambda entry: entry[0])):
            self._join(Member.of(each, self._settings.gaps))
            self._models.put(place, states, number)
        for _, info in infos:
            record = info["record"]
            self._newest, self._reader.form = self._by_name.get(record["newest"]), record["form"]
            self.learned, self._hash_at_start = record["step"], record["rows_sha256"]

    def _begin(self) -> None:
        self.title = f"{self.title}, for each {self._settings.series}"
        self._members: list[Member] = []
        self._by_name: dict[str, Member] = {}
        self._places: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._models = SideBySide(self._config, self._settings.seed)
        self._newest: Member | None = None
        self._skipped = 0

    def _restore(self) -> None:
        if self._folder is None:
            return
        info = checkpoint.newest_info(self._folder.checkpoints) or {"record": {"series": []}}
        restored = self._folder.restore(self._models.like(len(info["record"]["series"])))
        if restored is None:
            self._folder.write(f"series,{HEADING}")
            return
        self._models.states, record = restored
        for each in record["series"]:
            self._join(Member.of(each, self._settings.gaps))
        self._newest = self._by_name.get(record["newest"])
        self._reader.form = record["form"]
        self.learned, self._hash_at_start = record["step"], record["rows_sha256"]
        self._bad_before = record["bad"] if self._source.is_live else 0

    def _unlearned(self, rows: Iterator[Row]) -> Iterator[Row]:
        if self._source.is_live:
            return self._new_rows(rows)
        return super()._unlearned(rows if self._settings.share is None else self._numbered(rows))

    def _numbered(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The same rows, of whose series the number is noted, in the order in which they came first."""
        for row in rows:
            self._numbers.setdefault(row.series, len(self._numbers))
            yield row

    def _new_rows(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows of a live source without those at the beginning of each series that were learned."""
        marks = {m.name: Decimal(m.replay.mark) for m in self._members if m.replay.mark}
        keys = {m.name: set(m.replay.keys) for m in self._members}
        for row in rows:
            last = marks.get(row.series)
            if last is not None and row.mark is not None:
                if row.mark < last or (row.mark == last and row.key in keys[row.series]):
                    self._skipped += 1
                    continue
                del marks[row.series]
            yield row

    def _read(self, rows: Iterator[Row]) -> tuple[list[tuple[Row, bool]], BaseException | None]:
        while True:
            read, error = self._next_rows(rows)
            batch, error = self._ticks(read, error)
            if batch or error or not read:  # else all were of series that others have
                return batch, error

    def _has(self, series: str) -> bool:
        """Whether a series is in this process's share."""
        share = self._settings.share
        # Whole groups of those that are learned in one call: each part then makes calls of one process.
        return share is None or self._numbers[series] // TOGETHER % share[1] == share[0]

    def _ticks(
        self, read: list[Row], error: BaseException | None
    ) -> tuple[list[tuple[Row, bool]], BaseException | None]:
        """The rows to learn of those that were read, False for those that fill a gap, and the error."""
        of_series: dict[str, list[Row]] = {}
        for row in filter(lambda row: self._has(row.series), read):
            of_series.setdefault(row.series, []).append(row)
        for name, its_rows in of_series.items():
            if name not in self._by_name:
                self._join(Member(name, Clock(self._settings.gaps)))
            self._by_name[name].clock.look_ahead(its_rows)
        batch: list[tuple[Row, bool]] = []
        for row in read:
            if not self._has(row.series):
                self._hash.update(repr(row).encode())
                self.learned += 1
                continue
            member = self._by_name[row.series]
            try:
                ticks = [tick._replace(series=row.series) for tick in member.clock.tick(row)]
            except UserError as refusal:
                error = UserError(f"{self._settings.series} {row.series!r}: {refusal}")
                break
            self._hash.update(repr(row).encode())
            member.replay.learned(row)
            self.learned += 1
            batch += [(tick, tick is ticks[-1]) for tick in ticks]
        for name in of_series:
            self._by_name[name].clock.look_ahead([])
        return batch, error

    def _learn(self, batch: list[tuple[Row, bool]]) -> Iterator[RowForecast]:
        rows = [row for row, _ in batch]
        places = [self._places[row.series] for row in rows]
        results = self._models.learn(places, self._columns(rows))
        first: dict[str, list[Row]] = {}
        for row in rows:
            if self._by_name[row.series].keeper is None:
                first.setdefault(row.series, []).append(row)
        for name, its_rows in first.items():
            season = season_for(self._settings, its_rows)
            self._by_name[name].keeper = ScoreKeeper(self._settings.horizon, season)
        lines = []
        for row, each in zip(rows, results, strict=True):
            keeper, cell = self._by_name[row.series].keeper, to_cell(row.series)
            of_row = keeper.add(row.time, row.y, each).splitlines(keepends=True) if keeper else []
            lines += [f"{cell},{line}" for line in of_row]
        self._newest = self._by_name[rows[-1].series]
        if self._folder:
            self._folder.write("".join(lines))
        for (row, is_of_source), each in zip(batch, results, strict=True):
            if is_of_source:
                yield row_forecast(row, each)

    def _columns(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """Features, values and, where there are any, calendars of rows."""
        x = np.array([row.x for row in rows]).reshape(len(rows), -1)
        columns = [stream.pairs(x), stream.pairs([row.y for row in rows])]
        if self._config.has_calendar:
            calendars = [calendar_of(self._by_name[row.series].clock, row) for row in rows]
            columns.append(stream.float_array(calendars))
        return columns

    def _join(self, member: Member) -> None:
        """Gives a new series the next place."""
        place = len(self._members)
        self._places[member.name] = place
        self._by_name[member.name] = member
        self._members.append(member)
        self._models.make_room(place + 1)

    def _save(self) -> None:
        if not self._members or self._folder is None:
            return
        record = {
            "step": self.learned,
            "series": [dataclasses.asdict(member) for member in self._members],
            "newest": self._newest.name if self._newest else "",
            "form": self._reader.form,
            "irregularities": self.irregularities(),
            "bad": self._bad_before + self._reader.bad,
            "rows_sha256": None if self._source.is_live else self._hash.hexdigest(),
        }
        self._folder.save(self._models.states, record, "error")

    def _write_ahead(self) -> None:
        if self._folder:
            with self._folder.metrics.open("a") as file:
                for member in self._members:
                    file.writelines(f"{member.line_of(ahead)},,\n" for ahead in member.ahead())


def _place_of(number: int, part: int, parts: int) -> int:
    """The place among all series of one by its number in one of the parts."""
    group, place = divmod(number, TOGETHER)
    return (group * parts + part) * TOGETHER + place


def _listed(scores: Sequence[SeriesScore]) -> str:
    return ", ".join(f"{each.series} {each.ratio:.2f}" for each in scores)
