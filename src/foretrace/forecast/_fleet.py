"""Forecasts of many series of one table, side by side: each has weights, a state and a clock of its own."""

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence
from decimal import Decimal

import numpy as np

from foretrace import stream
from foretrace._checks import UserError
from foretrace.forecast._clock import Clock
from foretrace.forecast._forecasts import (
    Ahead,
    Forecasts,
    RowForecast,
    calendar_of,
    row_forecast,
    season_for,
)
from foretrace.forecast._members import Member, SeriesScore, score_of, to_cell
from foretrace.forecast._rows import Row
from foretrace.forecast._scores import HEADING, Score, ScoreKeeper
from foretrace.forecast._side_by_side import SideBySide
from foretrace.runs import checkpoint

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

    def _begin(self) -> None:
        self.title = f"{self.title}, for each {self._settings.series}"
        self._members: list[Member] = []
        self._by_name: dict[str, Member] = {}
        self._places: dict[str, int] = {}
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
        return self._new_rows(rows) if self._source.is_live else super()._unlearned(rows)

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
        read, error = self._next_rows(rows)
        of_series: dict[str, list[Row]] = {}
        for row in read:
            of_series.setdefault(row.series, []).append(row)
        for name, its_rows in of_series.items():
            if name not in self._by_name:
                self._join(Member(name, Clock(self._settings.gaps)))
            self._by_name[name].clock.look_ahead(its_rows)
        batch: list[tuple[Row, bool]] = []
        for row in read:
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


def _listed(scores: Sequence[SeriesScore]) -> str:
    return ", ".join(f"{each.series} {each.ratio:.2f}" for each in scores)
