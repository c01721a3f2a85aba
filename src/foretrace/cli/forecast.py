"""`foretrace forecast`: forecasts of a table or of lines as they arrive, learned at every row."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from foretrace import forecast, plotting
from foretrace.cli import _format
from foretrace.cli._parse import parse
from foretrace.cli._tasks import CellName
from foretrace.runs._signals import StopSignal


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
    cell: CellName = "elstm"
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
    arguments = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    data, features = arguments.pop("data"), arguments.pop("features")
    if features is not None:
        features = [name.strip() for name in features.split(",") if name.strip()]
    source = forecast.standard_input() if data == "-" else data
    with _format.warnings_in_one_line(), StopSignal(interrupt_waits=True) as stop:
        forecasts = forecast.forecast_file(
            source, features=features, stop=stop, config={"command": ["forecast", *words]}, **arguments
        )
        console = Console(stderr=forecasts.is_live)
        with forecasts:
            _format.say(console, f"{forecasts.title}; run folder {options.out}")
            if forecasts.learned:
                _format.say(console, f"goes on after row {forecasts.learned:,}")
            for _ in forecasts:
                if forecasts.is_live:
                    for ahead in forecasts.ahead():
                        print(forecasts.line_of(ahead), flush=True)
        if forecasts.ahead():
            _finish(options.out, forecasts, console)
        if stop.signal is not None:
            again = shlex.join(
                ["foretrace", "forecast", *(w for w in words if w != "--resume"), "--resume"]
            )
            _format.say(console, f"stopped after {forecasts.learned:,} rows; go on with: {again}")
            return 128 + stop.signal
    return 0


def _finish(out: Path, forecasts: forecast.Forecasts, console: Console) -> None:
    """Draws the picture and prints the scores and the next forecast."""
    plotting.plot_forecast(out / "predictions.csv", forecasts.target, out / "forecast.png")
    # By their position from behind: a time stamp may hold commas.
    *time, _, value, lower, upper = forecasts.line_of(forecasts.ahead()[0]).split(",")
    interval = f"{forecasts.coverage:.0%} interval {lower} to {upper}" if lower else "no interval yet"
    _format.say(
        console,
        *forecasts.summary(),
        f"next, {','.join(time)}: {value}, {interval}",
        f"{out}: predictions.csv, forecast.png, config.json, checkpoints",
    )
