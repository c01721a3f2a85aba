"""`foretrace forecast`: forecasts of a table or of lines as they arrive, learned at every row."""

import dataclasses
import hashlib
import itertools
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import jax
import tyro
from rich.console import Console

from foretrace import forecast, plotting, runs, stream
from foretrace._checks import UserError
from foretrace.cli import _show
from foretrace.cli._parse import parse
from foretrace.cli._wish import Wish
from foretrace.runs import checkpoint

_MODEL = ("horizon", "cell", "hidden", "learning_rate", "period", "coverage", "seed")
_CHUNK = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast:
    """Forecast a column of a table; learn from every row, from its whole past.

    Writes predictions.csv, forecast.png, config.json and checkpoints to the run folder. With - for the
    data, CSV lines are read from standard input as they arrive, and forecasts are printed after each.

    Examples:
      foretrace forecast sensor.csv --target value --time timestamp --horizon 12 --out runs/sensor
      tail -f log.csv | foretrace forecast - --target load --out runs/live
    """

    data: tyro.conf.Positional[str]
    """CSV, JSON lines (.jsonl) or Parquet (.parquet) file, or - for CSV on standard input."""
    target: str | None = None
    """Column to be forecast."""
    time: str | None = None
    """Column with dates or numbers at equal steps; rows are counted unless given."""
    features: str | None = None
    """Columns that help, with commas between them."""
    horizon: int = 1
    """How many rows ahead."""
    period: int | None = None
    """Rows in a season, 0 for none. Unless given the model sees none, and the seasonal naive rule that is
    shown beside it takes what is usual for the time stamps: a day, a week or a year."""
    out: Path = Path("runs/forecast")
    """Run folder, created."""
    gaps: Literal["stop", "fill", "ignore"] = "stop"
    """At a gap or a repeated time: stop, fill gaps and drop repetitions, or ignore both."""
    resume: bool = False
    """Go on with the run in --out, after the rows that it has seen."""
    from_checkpoint: Path | None = None
    """Run folder whose model forecasts here, without learning."""
    cell: Literal["elstm", "rtu", "diagonal", "gru", "lstm", "highway", "rnn"] = "elstm"
    """Kind of the recurrent network."""
    hidden: int = 32
    """Number of its units."""
    learning_rate: float = 0.003
    """Learning rate of Adam."""
    coverage: float = 0.9
    """How often the intervals shall hold the value."""
    checkpoint_every: str = "1m"
    """How often all that continues is saved: every so many rows, as 100000, or minutes, as 1m."""
    seed: int = 0
    """Seed of the initial weights."""


def run(words: Sequence[str]) -> int:
    """Runs the command with the words typed after it."""
    options = parse(Forecast, words, "foretrace forecast")
    if options.from_checkpoint is not None:
        options = _as_there(options)
    if options.target is None:
        raise UserError("target must be a column of the data; got none; give --target NAME.")
    _check(options)
    features = tuple(name.strip() for name in (options.features or "").split(",") if name.strip())
    columns = forecast.Columns(options.target, options.time, features)
    live = options.data == "-"
    rows = (
        forecast.follow_rows(sys.stdin, columns)
        if live
        else forecast.read_rows(Path(options.data), columns)
    )
    rhythm = runs.Rhythm.parse(options.checkpoint_every)
    plan = stream.Plan(
        cell=options.cell,
        hidden=options.hidden,
        features=len(features),
        horizon=options.horizon,
        lags=24,
        target="auto",
        period=options.period or 0,
        learning_rate=options.learning_rate,
        coverage=options.coverage,
        learning=options.from_checkpoint is None,
    )
    config = _show.config(
        dataclasses.replace(options, data=""), command=["forecast", *words], versions=runs.versions()
    )
    console = Console(stderr=live)
    with (
        _show.warnings_in_one_line(),
        runs.claim(options.out, config, rhythm, resume=options.resume, lines="predictions.csv") as folder,
        Wish() as wish,
    ):
        follower = _Follower(options, plan, folder, wish, live)
        follower.begin(console)
        try:
            follower.follow(rows)
        except ValueError:
            follower.save()
            raise
        follower.save()
        follower.finish(console)
        if wish.signal is not None:
            again = shlex.join(
                ["foretrace", "forecast", *(w for w in words if w != "--resume"), "--resume"]
            )
            _show.say(console, f"stopped after {follower.seen:,} rows; go on with: {again}")
            return 128 + wish.signal
    return 0


class _Follower:
    """One run: the model, its place in the data, and what it has said."""

    def __init__(
        self, options: Forecast, plan: stream.Plan, folder: runs.RunFolder, wish: Wish, live: bool
    ):
        self._options, self._plan, self._folder, self._wish, self._live = options, plan, folder, wish, live
        self._compiled = stream.forecasting(plan)
        self._state = self._compiled.initial(jax.random.key(options.seed))
        self._clock = forecast.Clock(options.gaps)
        self._journal: forecast.Journal | None = None
        self._hash = hashlib.sha256()
        self._before: str | None = None
        self.seen = 0

    def begin(self, console: Console) -> None:
        """Takes up the model that is to go on, if there is one."""
        like = jax.eval_shape(self._compiled.unpack, self._state)
        options = self._options
        if options.from_checkpoint is not None:
            tree = checkpoint.restore(options.from_checkpoint / "checkpoints", like).tree
            self._state = self._compiled.pack(tree)
        found = self._folder.restore(like)
        if found is None:
            self._folder.write(forecast.HEADING)
        else:
            tree, record = found
            self._state = self._compiled.pack(tree)
            self._clock = forecast.Clock(**record["clock"] | {"gaps": options.gaps})
            self._journal = forecast.Journal(**record["journal"])
            self.seen, self._before = record["step"], record["rows_sha256"]
        words = f"{options.target}, {options.horizon} ahead: {options.cell}, {options.hidden} units"
        _show.say(console, f"{words}; run folder {options.out}")
        if self.seen:
            _show.say(console, f"goes on after row {self.seen:,}")

    def follow(self, rows: Iterator[forecast.Row]) -> None:
        """Learns all rows; those that came before an error are learned before it is raised."""
        rows = self._after(rows)
        while self._wish.signal is None:
            batch, error = self._wait(rows)
            if batch:
                self._learn(batch)
            if error:
                raise error
            if not batch:
                return
            if self._folder.due(self.seen):
                self.save()

    def save(self) -> None:
        """Saves all that continues."""
        if self._journal is None:
            return
        record = {
            "step": self.seen,
            "clock": dataclasses.asdict(self._clock),
            "journal": dataclasses.asdict(self._journal),
            "rows_sha256": self._hash.hexdigest() if not self._live else None,
        }
        self._folder.save(self._compiled.unpack(self._state), record, "error")

    def finish(self, console: Console) -> None:
        """Draws the picture and says how well it went."""
        journal, clock, out = self._journal, self._clock, self._options.out
        if journal is None or not journal.rows:
            return
        ahead = [(clock.ahead(h), h, *rest) for h, *rest in journal.ahead()]
        # Not counted among the lines that stay: a resumed run takes them away again.
        with (out / "predictions.csv").open("a") as file:
            file.writelines(
                f"{time},{h},{value:.7g},{low:.7g},{high:.7g},,\n" for time, h, value, low, high in ahead
            )
        plotting.plot_forecast(out / "predictions.csv", str(self._options.target), out / "forecast.png")
        _show.say(console, f"{journal.rows:,} rows", *forecast.summary(journal))
        weights = stream.weights_of(self._plan, self._compiled.unpack(self._state).state)
        shown = [f"{name} {weight:.0%}" for name, weight in weights.items()]
        _show.say(console, f"one step ahead, what each expert counts for: {', '.join(shown)}")
        counts = {
            "values were unknown; the forecast stood in for them": journal.unknown,
            "of these times were missing in the data": clock.filled,
            "rows repeated a time and were dropped": clock.dropped,
        }
        _show.say(console, *(f"{count:,} {words}" for words, count in counts.items() if count))
        time, _, value, low, high = ahead[0]
        _show.say(
            console,
            f"next, {time}: {value:.5g}, {self._options.coverage:.0%} interval {low:.5g} to {high:.5g}",
            f"{out}: predictions.csv, forecast.png, config.json, checkpoints",
        )

    def _after(self, rows: Iterator[forecast.Row]) -> Iterator[forecast.Row]:
        """The rows that were not seen before, in a file whose beginning is still what it was."""
        if self._live or not self.seen:
            yield from rows
            return
        count = 0
        for row in itertools.islice(rows, self.seen):
            self._hash.update(repr(row).encode())
            count += 1
        if count < self.seen or self._hash.hexdigest() != self._before:
            raise UserError(
                f"data must begin with the {self.seen:,} rows that were seen before; got "
                f"{'others' if count == self.seen else f'only {count:,}'}; the file has changed: give the "
                "one that the run began with, or begin another run."
            )
        yield from rows

    def _season(self, rows: list[forecast.Row]) -> int:
        if self._options.period is not None:
            return self._options.period
        return forecast.season_of([row.when for row in rows]) if rows[0].dated else 0

    def _wait(self, rows: Iterator[forecast.Row]) -> tuple[list[forecast.Row], Exception | None]:
        """The next rows, one if they arrive one by one, and the error that came after them."""
        batch: list[forecast.Row] = []
        try:
            while len(batch) < (1 if self._live else _CHUNK):
                with self._wish.heard():
                    row = next(rows, None)
                if row is None:
                    break
                filled = list(self._clock.tick(row))
                self._hash.update(repr(row).encode())
                self.seen += 1
                batch += filled
        except ValueError as error:
            return batch, error
        except KeyboardInterrupt:
            pass
        return batch, None

    def _learn(self, batch: list[forecast.Row]) -> None:
        x = stream.float_array([row.x for row in batch]).reshape(len(batch), -1)
        y = stream.float_array([row.y for row in batch])
        self._state, said = stream.run_rows(self._compiled, self._state, x, y)
        journal = self._journal = self._journal or forecast.Journal(
            self._options.horizon, self._season(batch)
        )
        lines = [
            journal.enter(row.time, row.y, stream.outlook(answer))
            for row, answer in zip(batch, said, strict=True)
        ]
        self._folder.write("".join(lines))
        if self._live:
            for h, value, low, high in journal.ahead():
                print(f"{self._clock.ahead(h)},{h},{value:.7g},{low:.7g},{high:.7g}", flush=True)


def _as_there(options: Forecast) -> Forecast:
    """The options with those of the model that is to be used."""
    there = runs.read_config(Path(options.from_checkpoint or ""))
    if not there or there.get("command", [""])[0] != "forecast":
        raise UserError(
            f"from_checkpoint must be a run folder of foretrace forecast; got "
            f"{str(options.from_checkpoint)!r}; see foretrace forecast --help."
        )
    found = {name: there.get(name) for name in _MODEL}
    for name in ("target", "time", "features"):
        given = getattr(options, name)
        found[name] = there.get(name) if given is None else given
    return dataclasses.replace(options, **found)


def _check(options: Forecast) -> None:
    """Raises ValueError for numbers that make no sense."""
    limits: dict[str, tuple[float, float]] = {
        "horizon": (1, 1000),
        "hidden": (1, 4096),
        "seed": (0, 2**32 - 1),
        "period": (0, 100_000),
    }
    for name, (least, most) in limits.items():
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            raise UserError(f"{name} must be an int from {least} to {most}; got {value}; see --help.")
    for name in ("learning_rate", "coverage"):
        value = getattr(options, name)
        if not (math.isfinite(value) and 0 < value < 1):
            raise UserError(f"{name} must be above 0 and below 1; got {value}; leave it out.")
