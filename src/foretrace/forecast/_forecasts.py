"""The forecasts of one source, row by row: read, learn, score, write, save."""

import contextlib
import dataclasses
import hashlib
import itertools
from collections.abc import Generator, Iterator

import jax
import numpy as np

from foretrace import stream
from foretrace._checks import UserError
from foretrace.forecast._clock import Clock
from foretrace.forecast._predictions import write_parquet
from foretrace.forecast._replay import Replay
from foretrace.forecast._row_forecast import Ahead, RowForecast, calendar_of, row_forecast, season_for
from foretrace.forecast._rows import Row, RowReader
from foretrace.forecast._scores import HEADING, Score, ScoreKeeper, summary
from foretrace.forecast._settings import Settings
from foretrace.forecast._sources import ParquetSource, Source
from foretrace.forecast._weights import WeightHistory
from foretrace.runs import checkpoint
from foretrace.runs._folder import RunFolder
from foretrace.runs._signals import StopSignal

_CHUNK = 256  # rows that are read and learned at once from a source that is not live


class Forecasts(Iterator[RowForecast]):
    """Iterator over the forecasts of one source; made by `forecast_file`.

    Leave it early by `close` or as a context manager: everything that was learned is saved.

    Attributes:
        learned: rows of the source that were learned, those before a resumed run included.
        target: column that is forecast.
        coverage: share of the values that the intervals shall hold.
        is_live: whether rows arrive one by one.
        title: the forecast in words.
    """

    _rows_at_once = _CHUNK

    def __init__(
        self,
        settings: Settings,
        source: Source,
        reader: RowReader,
        folder: RunFolder | None,
        stop: StopSignal | None,
        resources: contextlib.ExitStack,
    ):
        self._settings, self._source, self._folder, self._stop = settings, source, folder, stop
        self._reader, self._replay, self._bad_before = reader, Replay(), 0
        self._weights = WeightHistory()
        self.target, self.coverage = str(settings.target), settings.coverage
        self.is_live = source.is_live
        model = f"{settings.cell}, {settings.hidden} units"
        self.title = f"{self.target}, {settings.horizon} ahead: {model}"
        self._config = settings.model()
        self._compiled = stream.forecasting(self._config)
        self._hash = hashlib.sha256()
        self._hash_at_start: str | None = None
        self.learned = 0
        self._begin()
        self._restore()
        self._iterator = self._run(self._unlearned(reader))
        self._resources = resources.pop_all()

    def __next__(self) -> RowForecast:
        """Learns the next row, or the next chunk of rows, and forecasts from it."""
        return next(self._iterator)

    def __enter__(self) -> "Forecasts":
        """Saves and releases the run folder at the end of the block."""
        return self

    def __exit__(self, *_) -> None:
        """Closes."""
        self.close()

    def close(self) -> None:
        """Saves everything that was learned, and releases the run folder and the source."""
        self._iterator.close()
        self._resources.close()

    def ahead(self) -> list[Ahead]:
        """The forecasts of the H rows after the newest one that was learned."""
        keeper = self._keeper
        return (
            [Ahead(self._clock.ahead(h), h, *rest) for h, *rest in keeper.next_forecasts()]
            if keeper
            else []
        )

    def line_of(self, ahead: Ahead) -> str:
        """Time, horizon, forecast and bounds, with the digits that the data has, as CSV."""
        return self._keeper.line_of(*ahead) if self._keeper else ""

    def scores(self) -> list[Score]:
        """The errors so far at every horizon, beside those of simple rules."""
        return self._keeper.scores() if self._keeper else []

    def experts(self) -> dict[str, float]:
        """The weight of each expert in the forecast one row ahead."""
        names = stream.forecast_experts(self._config)
        return stream.weights_of(names, self._compiled.unpack(self._state).state)

    def seasons(self) -> list[int]:
        """Rows of the seasons that the model sees at the moment, the shorter one first."""
        return sorted(rows for rows in self._compiled.unpack(self._state).seasons.periods.tolist() if rows)

    def summary(self) -> list[str]:
        """The scores, the experts and the irregularities of the data, in sentences."""
        keeper = self._keeper
        scores = []
        if keeper:
            weights = ", ".join(f"{name} {weight:.0%}" for name, weight in self.experts().items())
            seasons = " and ".join(f"{rows:,}" for rows in self.seasons()) or "none"
            scores = [
                *summary(keeper),
                f"one step ahead, what each expert counts for: {weights}",
                f"seasons in rows: {seasons}",
            ]
        return [f"{keeper.rows if keeper else 0:,} rows", *scores, *self.irregularities()]

    def irregularities(self) -> list[str]:
        """What was unusual about the data, in sentences."""
        keeper, clock = self._keeper, self._clock
        counts = {
            "values were unknown; the forecast stood in for them": keeper.unknown if keeper else 0,
            "of these times were missing in the data": clock.filled,
            "rows repeated a time and were dropped": clock.dropped,
            "rows could not be read, or not all of their cells": self._bad_before + self._reader.bad,
            "rows had been learned before and were skipped": self._replay.skipped,
            "times the clock changed by an hour, which is no gap": clock.changes,
        }
        return [
            *(f"{count:,} {words}" for words, count in counts.items() if count),
            *self._reader.notes,
        ]

    def _begin(self) -> None:
        """A new model, and nothing known of the data."""
        self._state = self._compiled.init(jax.random.key(self._settings.seed))
        self._clock = Clock(self._settings.gaps)
        self._keeper: ScoreKeeper | None = None

    def _restore(self) -> None:
        """Takes up the model that is to go on, if there is one."""
        like = jax.eval_shape(self._compiled.unpack, self._state)
        if self._settings.from_checkpoint is not None:
            tree = checkpoint.restore(self._settings.from_checkpoint / "checkpoints", like).tree
            self._state = self._compiled.pack(tree)
        if self._folder is None:
            return
        restored = self._folder.restore(like)
        if restored is None:
            self._folder.write(HEADING)
            return
        tree, record = restored
        self._state = self._compiled.pack(tree)
        self._clock = Clock.of(record["clock"], self._settings.gaps)
        self._keeper = ScoreKeeper(**record["scores"])
        self._replay = Replay(**record["replay"] | {"skipped": 0})
        self._weights = WeightHistory(**record.get("weights", {}))
        self._reader.form = self._clock.form
        self.learned, self._hash_at_start = record["step"], record["rows_sha256"]
        # A file is read again from its first row, bad ones included.
        self._bad_before = record["bad"] if self._source.is_live else 0

    def _run(self, rows: Iterator[Row]) -> Generator[RowForecast, None, None]:
        with self._resources:
            batch: list[tuple[Row, bool]] | None = None
            while batch != [] and (self._stop is None or self._stop.signal is None):
                batch, error = self._read(rows)
                try:
                    if batch:
                        yield from self._learn(batch)
                except GeneratorExit:
                    self._save()
                    raise
                if error:
                    self._save()
                    raise error
                if batch and self._folder and self._folder.due(self.learned):
                    self._save()
            self._save()
            self._write_ahead()
            if self._folder and isinstance(self._source, ParquetSource):
                write_parquet(self._folder.metrics)

    def _unlearned(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows after those that were learned; a file must still begin as it did."""
        if self._source.is_live:
            rows = self._replay.new(rows)
        elif self.learned:
            count = 0
            for row in itertools.islice(rows, self.learned):
                self._hash.update(repr(row).encode())
                count += 1
            if count < self.learned or self._hash.hexdigest() != self._hash_at_start:
                raise UserError(
                    f"data must begin with the {self.learned:,} rows that were seen before; got "
                    f"{'others' if count == self.learned else f'only {count:,}'}; the file has changed: "
                    "give the one that the run began with, or begin another run."
                )
        yield from rows

    def _read(self, rows: Iterator[Row]) -> tuple[list[tuple[Row, bool]], BaseException | None]:
        """The next rows to learn, False for those that fill a gap, and the error that came after them."""
        read, error = self._next_rows(rows)
        self._clock.look_ahead(read)
        batch: list[tuple[Row, bool]] = []
        try:
            for row in read:
                ticks = list(self._clock.tick(row))
                self._hash.update(repr(row).encode())
                self._replay.learned(row)
                self.learned += 1
                batch += [(tick, tick is ticks[-1]) for tick in ticks]
        except UserError as refusal:
            error = refusal
        self._clock.look_ahead([])  # what comes is more like the last of them than like all
        return batch, error

    def _next_rows(self, rows: Iterator[Row]) -> tuple[list[Row], BaseException | None]:
        """The next rows of the source, and the error that came after them."""
        read: list[Row] = []
        try:
            while len(read) < (1 if self._source.is_live else self._rows_at_once):
                with self._stop.wait() if self._stop else contextlib.nullcontext():
                    row = next(rows, None)
                if row is None:
                    break
                read.append(row)
        except UserError as error:
            return read, error
        except OSError as error:
            reason = f"{self._source.name} cannot be read any more: {error.strerror}; go on with --resume."
            return read, UserError(reason)
        except KeyboardInterrupt as error:
            return read, None if self._stop and self._stop.signal is not None else error
        return read, None

    def _learn(self, batch: list[tuple[Row, bool]]) -> Iterator[RowForecast]:
        rows = [row for row, _ in batch]
        x = stream.pairs(np.array([row.x for row in rows]).reshape(len(rows), -1))
        y = stream.pairs([row.y for row in rows])
        columns = [x, y]
        if self._config.has_calendar:
            columns.append(stream.float_array([calendar_of(self._clock, row) for row in rows]))
        self._state, outputs = stream.run_rows(self._compiled, self._state, *columns)
        if self._keeper is None:
            self._keeper = ScoreKeeper(self._settings.horizon, season_for(self._settings, rows))
        results = [stream.ForecastResult.unpack(output) for output in outputs]
        lines = [self._keeper.add(row.time, row.y, each) for row, each in zip(rows, results, strict=True)]
        self._weights.take(self._keeper.rows, rows[-1].time, self.experts)
        if self._folder:
            self._folder.write("".join(lines))
        for (row, is_of_source), each in zip(batch, results, strict=True):
            if is_of_source:
                yield row_forecast(row, each)

    def _save(self) -> None:
        if self._keeper is None or self._folder is None:
            return
        record = {
            "step": self.learned,
            "clock": dataclasses.asdict(self._clock),
            "scores": dataclasses.asdict(self._keeper),
            "replay": dataclasses.asdict(self._replay),
            # What a page tells beside the lines of predictions.csv.
            "weights": dataclasses.asdict(self._weights),
            "ahead": [self._line_ahead(ahead) for ahead in self.ahead()],
            "irregularities": self.irregularities(),
            "bad": self._bad_before + self._reader.bad,
            "rows_sha256": None if self._source.is_live else self._hash.hexdigest(),
        }
        self._folder.save(self._compiled.unpack(self._state), record, "error")

    def _write_ahead(self) -> None:
        """Appends the forecasts of rows to come, which a resumed run takes away again."""
        if self._folder:
            with self._folder.metrics.open("a") as file:
                file.writelines(map(self._line_ahead, self.ahead()))

    def _line_ahead(self, ahead: Ahead) -> str:
        """A line of predictions.csv whose value is still to come."""
        return f"{self.line_of(ahead)},,\n"
