"""Forecasts of a table, row by row: what `foretrace forecast` calls."""

import contextlib
import dataclasses
import hashlib
import itertools
import math
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from foretrace import stream
from foretrace._checks import UserError
from foretrace.forecast._clock import Clock
from foretrace.forecast._rows import Columns, Row, read_rows
from foretrace.forecast._scores import HEADING, Score, ScoreKeeper, season_of, summary
from foretrace.forecast._sources import Source, open_source
from foretrace.runs import checkpoint
from foretrace.runs._folder import RunFolder, SaveInterval, open_run, read_config
from foretrace.runs._signals import StopSignal

_CHUNK = 256  # rows that are read and learned at once from a source that is not live
_LAGS = 24


class RowForecast(NamedTuple):
    """A row that was learned, and the forecasts made after it; H is the horizon.

    Attributes:
        time: its time stamp, or its number.
        actual: its target, NaN if unknown.
        forecast: (H,), of the H rows after it.
        lower: (H,), their lower bounds, infinite while unknown.
        upper: (H,), their upper bounds.
        anomaly: share of past errors one row ahead that were smaller than that of `actual`; NaN if unknown.
    """

    time: str
    actual: float
    forecast: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    anomaly: float


class Ahead(NamedTuple):
    """A forecast of a row to come, with its interval."""

    time: str
    horizon: int
    forecast: float
    lower: float
    upper: float


@dataclasses.dataclass(frozen=True)
class _Settings:
    """Arguments of `forecast_file` that say what is forecast, and by which model."""

    target: str | None
    time: str | None
    features: tuple[str, ...] | None
    horizon: int
    period: int | None
    gaps: Literal["stop", "fill", "ignore"]
    cell: str
    hidden: int
    learning_rate: float
    coverage: float
    seed: int
    from_checkpoint: Path | None

    def resolved(self) -> "_Settings":
        """The same, with the model of `from_checkpoint` and the columns that it was fitted to."""
        if self.from_checkpoint is None:
            return self
        config = read_config(self.from_checkpoint)
        if not config or config.get("kind") != "forecast":
            raise UserError(
                "from_checkpoint must be a run folder of a forecast; got "
                f"{str(self.from_checkpoint)!r}; see foretrace forecast --help."
            )
        model = ("horizon", "cell", "hidden", "learning_rate", "period", "coverage", "seed")
        values = {name: config.get(name) for name in model}
        for name in ("target", "time", "features"):
            value = getattr(self, name)
            values[name] = config.get(name) if value is None else value
        values["features"] = tuple(values["features"] or ())
        return dataclasses.replace(self, **values)

    def check(self) -> None:
        """Raises UserError for values that make no sense."""
        if self.target is None:
            raise UserError("target must be a column of the data; got none; give --target NAME.")
        limits = {
            "horizon": (1, 1000),
            "hidden": (1, 4096),
            "seed": (0, 2**32 - 1),
            "period": (0, 100_000),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise UserError(f"{name} must be an int from {least} to {most}; got {value}; see --help.")
        for name in ("learning_rate", "coverage"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 < value < 1):
                raise UserError(f"{name} must be above 0 and below 1; got {value}; leave it out.")

    def model(self) -> stream.Config:
        """The configuration of the model."""
        return stream.Config(
            cell=self.cell,
            hidden=self.hidden,
            features=len(self.features or ()),
            horizon=self.horizon,
            lags=_LAGS,
            target="auto",
            period=self.period or 0,
            learning_rate=self.learning_rate,
            coverage=self.coverage,
            learning=self.from_checkpoint is None,
        )


def forecast_file(
    source: str | os.PathLike | Source | Iterable[str],
    *,
    target: str | None = None,
    time: str | None = None,
    features: Sequence[str] | None = None,
    horizon: int = 1,
    period: int | None = None,
    gaps: Literal["stop", "fill", "ignore"] = "stop",
    coverage: float = 0.9,
    cell: str = "elstm",
    hidden: int = 32,
    learning_rate: float = 0.003,
    seed: int = 0,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    from_checkpoint: str | os.PathLike | None = None,
    checkpoint_every: str = "1m",
    stop: StopSignal | None = None,
    config: Mapping[str, Any] | None = None,
) -> "Forecasts":
    r"""Forecasts a column of a table after each of its rows, and learns each row.

    Args:
        source: a CSV, JSON lines (.jsonl) or Parquet (.parquet) file, lines of CSV, or any `Source`.
        target: the column to forecast; may be left out with `from_checkpoint`.
        time: column with dates or numbers at equal steps; without it rows are counted.
        features: columns that help.
        horizon: rows ahead, H.
        period: rows in a season, 0 for none. With None the model knows no season, and the seasonal naive
            rule beside it takes the usual one for the time stamps: a day, a week or a year.
        gaps: "stop" at a gap or a repeated time, "fill" gaps and drop repetitions, or "ignore" both.
        coverage: share of the values that the intervals shall hold.
        cell: kind of the recurrent network, one of `foretrace.stream.CELLS`.
        hidden: number of its units.
        learning_rate: of Adam.
        seed: of the initial weights.
        out: run folder for predictions.csv, config.json and checkpoints; None writes nothing.
        resume: go on with the run in `out`, after the rows that it learned.
        from_checkpoint: run folder whose model, with its settings, forecasts here without learning.
        checkpoint_every: rows, as "100000", or minutes, as "1m", between checkpoints.
        stop: ends the iteration, with everything saved, once its `signal` is set.
        config: further entries of config.json.

    Returns:
        An iterator over one `RowForecast` a row; rows are read and learned as it advances.

    Raises:
        UserError: for arguments, a heading or a run folder that cannot be used. While iterating, for a row
            that cannot be used, once the rows before it are learned and saved.
        RunError: if another process uses `out`, or `out` cannot be written any more.

    Example:
        >>> from foretrace.forecast import forecast_file
        >>> lines = ["load\n", *(f"{i % 4}\n" for i in range(200))]
        >>> forecasts = forecast_file(lines, target="load", horizon=2, hidden=4)
        >>> rows = list(forecasts)
        >>> len(rows), rows[-1].time, rows[-1].forecast.shape
        (200, '200', (2,))
        >>> [(ahead.time, ahead.horizon) for ahead in forecasts.ahead()]
        [('201', 1), ('202', 2)]
        >>> persistence = forecasts.scores()[0].rules["persistence"]
        >>> persistence.ours < 0.3 < persistence.error
        True
    """
    settings = _Settings(
        target=target,
        time=time,
        features=None if features is None else tuple(features),
        horizon=horizon,
        period=period,
        gaps=gaps,
        cell=cell,
        hidden=hidden,
        learning_rate=learning_rate,
        coverage=coverage,
        seed=seed,
        from_checkpoint=None if from_checkpoint is None else Path(from_checkpoint),
    ).resolved()
    settings.check()
    interval = SaveInterval.parse(checkpoint_every)
    if resume and out is None:
        raise UserError("out must be the folder of the run to resume; got None; give it.")
    columns = Columns(str(settings.target), settings.time, settings.features or ())
    with contextlib.ExitStack() as stack:
        opened = open_source(source)
        stack.callback(opened.close)
        rows = read_rows(opened, columns)
        folder = None
        if out is not None:
            written = {
                "kind": "forecast",
                **dataclasses.asdict(settings),
                "features": list(columns.features),
                "from_checkpoint": None if from_checkpoint is None else str(from_checkpoint),
                **(config or {}),
            }
            written = {name: value for name, value in written.items() if value is not None}
            folder = stack.enter_context(
                open_run(Path(out), written, interval, resume=resume, lines="predictions.csv")
            )
        return Forecasts(settings, opened, rows, folder, stop, stack)


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

    def __init__(
        self,
        settings: _Settings,
        source: Source,
        rows: Iterator[Row],
        folder: RunFolder | None,
        stop: StopSignal | None,
        resources: contextlib.ExitStack,
    ):
        self._settings, self._source, self._folder, self._stop = settings, source, folder, stop
        self.target, self.coverage = str(settings.target), settings.coverage
        self.is_live = source.is_live
        model = f"{settings.cell}, {settings.hidden} units"
        self.title = f"{self.target}, {settings.horizon} ahead: {model}"
        self._config = settings.model()
        self._compiled = stream.forecasting(self._config)
        self._state = self._compiled.init(jax.random.key(settings.seed))
        self._clock = Clock(settings.gaps)
        self._keeper: ScoreKeeper | None = None
        self._hash = hashlib.sha256()
        self._hash_at_start: str | None = None
        self.learned = 0
        self._restore()
        self._iterator = self._run(self._unlearned(rows))
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
        return stream.weights_of(self._config, self._compiled.unpack(self._state).state)

    def summary(self) -> list[str]:
        """The scores, the experts and the irregularities of the data, in sentences."""
        keeper, clock = self._keeper, self._clock
        if keeper is None:
            return []
        weights = ", ".join(f"{name} {weight:.0%}" for name, weight in self.experts().items())
        counts = {
            "values were unknown; the forecast stood in for them": keeper.unknown,
            "of these times were missing in the data": clock.filled,
            "rows repeated a time and were dropped": clock.dropped,
        }
        return [
            f"{keeper.rows:,} rows",
            *summary(keeper),
            f"one step ahead, what each expert counts for: {weights}",
            *(f"{count:,} {words}" for words, count in counts.items() if count),
        ]

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
        self._clock = Clock(**record["clock"] | {"gaps": self._settings.gaps})
        self._keeper = ScoreKeeper(**record["scores"])
        self.learned, self._hash_at_start = record["step"], record["rows_sha256"]

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

    def _unlearned(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows after those that were learned; a file must still begin as it did."""
        if self.learned and not self._source.is_live:
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
        batch: list[tuple[Row, bool]] = []
        try:
            while len(batch) < (1 if self._source.is_live else _CHUNK):
                with self._stop.wait() if self._stop else contextlib.nullcontext():
                    row = next(rows, None)
                if row is None:
                    break
                ticks = list(self._clock.tick(row))
                self._hash.update(repr(row).encode())
                self.learned += 1
                batch += [(tick, tick is ticks[-1]) for tick in ticks]
        except UserError as error:
            return batch, error
        except OSError as error:
            reason = f"{self._source.name} cannot be read any more: {error.strerror}; go on with --resume."
            return batch, UserError(reason)
        except KeyboardInterrupt as error:
            return batch, None if self._stop and self._stop.signal is not None else error
        return batch, None

    def _learn(self, batch: list[tuple[Row, bool]]) -> Iterator[RowForecast]:
        rows = [row for row, _ in batch]
        x = stream.pairs(np.array([row.x for row in rows]).reshape(len(rows), -1))
        y = stream.pairs([row.y for row in rows])
        self._state, outputs = stream.run_rows(self._compiled, self._state, x, y)
        if self._keeper is None:
            self._keeper = ScoreKeeper(self._settings.horizon, self._season(rows))
        results = [stream.ForecastResult.unpack(output) for output in outputs]
        lines = [self._keeper.add(row.time, row.y, each) for row, each in zip(rows, results, strict=True)]
        if self._folder:
            self._folder.write("".join(lines))
        for (row, is_of_source), each in zip(batch, results, strict=True):
            if is_of_source:
                anomaly = math.nan if math.isnan(row.y) else 1 - float(each.tail)
                yield RowForecast(row.time, row.y, each.forecast, each.lower, each.upper, anomaly)

    def _season(self, rows: list[Row]) -> int:
        if self._settings.period is not None:
            return self._settings.period
        return season_of([row.when for row in rows]) if rows[0].dated else 0

    def _save(self) -> None:
        if self._keeper is None or self._folder is None:
            return
        record = {
            "step": self.learned,
            "clock": dataclasses.asdict(self._clock),
            "scores": dataclasses.asdict(self._keeper),
            "rows_sha256": None if self._source.is_live else self._hash.hexdigest(),
        }
        self._folder.save(self._compiled.unpack(self._state), record, "error")

    def _write_ahead(self) -> None:
        """Appends the forecasts of rows to come, which a resumed run takes away again."""
        if self._folder:
            with self._folder.metrics.open("a") as file:
                file.writelines(f"{self.line_of(ahead)},,\n" for ahead in self.ahead())
