"""`foretrace forecast`: forecasts of a table or of lines as they arrive, learned at every row."""

import contextlib
import csv
import dataclasses
import io
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from foretrace import forecast, plotting
from foretrace._checks import UserError, checked_path
from foretrace.cli import _format
from foretrace.cli._parse import parse
from foretrace.cli._tasks import CellName
from foretrace.runs import checkpoint
from foretrace.runs._config import read_config
from foretrace.runs._lock import lock
from foretrace.runs._progress import TableOfParts
from foretrace.runs._signals import StopSignal
from foretrace.scale import _ray

# Entries of config.json that are options by the same name.
_TYPED = (
    *("target", "time", "series", "horizon", "period", "calendar", "gaps", "on_bad", "cell", "hidden"),
    *("learning_rate", "coverage", "seed", "checkpoint_every"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast:
    """Forecast a column of a table; learn from every row, from its whole past.

    Writes predictions.csv, report.html (a page to open in a browser), forecast.png, config.json and
    checkpoints to the run folder. With - for the data, lines are read from standard input as they arrive,
    and forecasts are printed after each; foretrace watch shows them meanwhile.

    Examples:
      foretrace forecast sensor.csv --target value --time timestamp --horizon 12 --out runs/sensor
      tail -n +1 -F log.csv | foretrace forecast - --target load --out runs/live
    """

    data: tyro.conf.Positional[str]
    """CSV, JSON or Parquet (.parquet) file, or - for CSV or lines of JSON on standard input."""
    target: str | None = None
    """Column to be forecast."""
    time: str | None = None
    """Column with dates or numbers at equal steps; rows are counted unless given."""
    series: str | None = None
    """Column with the name of the series of each row, as a meter's: each has a model of its own."""
    features: str | None = None
    """Columns that help, with commas between them; a name may have commas itself."""
    horizon: int = 1
    """How many rows ahead."""
    period: int | Literal["auto"] = "auto"
    """Rows in a season, 0 for none. With auto up to two are found, such as a day and a week."""
    calendar: Literal["on", "off"] = "on"
    """Whether dates in --time show the time of day, the day of the week and the day of the year."""
    out: Path = Path("runs/forecast")
    """Run folder, created."""
    gaps: Literal["stop", "fill", "ignore"] = "stop"
    """At a gap or a repeated time: stop, fill gaps and drop repetitions, or ignore both."""
    on_bad: Literal["stop", "skip"] = "stop"
    """At a row or cell that cannot be read: stop, or go on without it and count it in the report."""
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
    engine: str | None = None
    """ray, or ray://HOST:PORT of a cluster (extra foretrace[ray]): with --series, every core has a part of
    the series, in a folder under --out that all machines see; a killed one goes on from its checkpoint."""


def run(words: Sequence[str]) -> int:
    """Runs the command with the words typed after it."""
    options = parse(Forecast, words, "foretrace forecast")
    arguments = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    data, engine = arguments.pop("data"), arguments.pop("engine")
    _ray.check_engine(engine)
    if engine is not None and (options.series is None or data == "-"):
        raise UserError(
            "engine must be left out but for a file with --series; got "
            f"{'standard input' if data == '-' else 'one series'}; drop --engine."
        )
    gather = [] if engine is None else _learn_in_parts(engine, data, arguments)
    source = forecast.standard_input() if data == "-" else data
    config = {"command": ["forecast", *words]} | ({"source": "-"} if data == "-" else {})
    with _format.warnings_in_one_line(), StopSignal(interrupt_waits=True) as stop:
        arguments["resume"] |= bool(gather)
        forecasts = forecast.forecast_file(source, stop=stop, config=config, gather=gather, **arguments)
        console = Console(stderr=forecasts.is_live)
        with _drawn_if_refused(options.out, forecasts), forecasts:
            _format.say(console, f"{forecasts.title}; run folder {options.out}")
            if forecasts.learned:
                _format.say(console, f"goes on after row {forecasts.learned:,}")
            for _ in forecasts:
                if forecasts.is_live:
                    for ahead in forecasts.ahead():
                        print(forecasts.line_of(ahead), flush=True)
        if forecasts.ahead():
            _finish(options.out, forecasts, console)
        else:
            _format.say(console, *forecasts.summary())
        if stop.signal is not None:
            again = shlex.join(
                ["foretrace", "forecast", *(w for w in words if w != "--resume"), "--resume"]
            )
            _format.say(console, f"stopped after {forecasts.learned:,} rows; go on with: {again}")
            return 128 + stop.signal
    return 0


def _learn_in_parts(engine: str, data: str, arguments: dict[str, Any]) -> list[Path]:
    """Lets tasks of Ray learn the series, a part each; their folders, or none if that was done before."""
    out = arguments["out"]
    if checkpoint.steps(out / "checkpoints"):
        return []  # gathered before: what is there is refused, or goes on, as without tasks
    folder, console = out / "parts", Console()
    # What no task could use is refused here, before there is a folder.
    forecast.forecast_file(data, **arguments | {"out": None, "resume": False}).close()
    with _ray.connected(engine, out) as ray:
        old = sorted(folder.glob("part-*-of-*"))
        if (old or read_config(out) is not None) and not arguments["resume"]:
            raise UserError(
                f"out must be a folder without a run; got {str(out)!r}, which already holds one; go on "
                "with it by --resume, or choose another folder."
            )
        # As many as at first: each series stays where it is.
        count = int(old[0].name.rpartition("-")[2]) if old else _ray.cores(ray)
        with checked_path("out", out, "a folder that can be written", "choose another folder"):
            folder.mkdir(parents=True, exist_ok=True)
        common = arguments | {"resume": True, "from_checkpoint": None}
        parts = [
            _ray.Part(
                f"part {i + 1} of {count}",
                folder / f"part-{i}-of-{count}",
                (str(Path(data).absolute()), {**common, "share": (i, count)}),
            )
            for i in range(count)
        ]
        with lock(folder), TableOfParts(console, [(part.name, None) for part in parts], "rows") as table:
            _ray.run_parts(ray, learn_part, parts, lambda part: table.show(part.name, _rows(part.folder)))
    return [part.folder for part in parts]


def learn_part(folder: Path, data: str, arguments: dict[str, Any]) -> None:
    """Forecasts and learns a share of the series of a table; goes on with what is in the folder.

    Args:
        folder: run folder of this part.
        data: the table.
        arguments: of `forecast_file`.
    """
    arguments["out"] = folder
    with forecast.forecast_file(data, **arguments) as forecasts:
        for _ in forecasts:
            pass


def _rows(folder: Path) -> int:
    """The rows of the table that a part has read, as of its newest checkpoint."""
    info = checkpoint.newest_info(folder / "checkpoints") if folder.is_dir() else None
    return info["record"]["step"] if info else 0


def command_of(config: Mapping[str, Any]) -> list[str]:
    """The words for a run folder's configuration, whether the command or `forecast_file` wrote it.

    Raises:
        UserError: rows came from a program; only that program can go on.
    """
    if "source" not in config:
        raise UserError(
            "run must read a file or standard input; got one that a program feeds; go on by "
            "forecast_file(.., resume=True) in that program."
        )
    entries = {name: config[name] for name in (*_TYPED, "from_checkpoint") if name in config}
    if config.get("features"):
        # As a line of CSV: a name may have commas.
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(config["features"])
        entries["features"] = line.getvalue()
    options = [f"--{name.replace('_', '-')}={value}" for name, value in entries.items()]
    return ["forecast", str(config["source"]), *options]


@contextlib.contextmanager
def _drawn_if_refused(out: Path, forecasts: forecast.Forecasts) -> Iterator[None]:
    """Draws what came before a row that is refused; the refusal is what the user has to know."""
    try:
        yield
    except UserError:
        with contextlib.suppress(UserError):
            _draw(out, forecasts)
        raise


def _draw(out: Path, forecasts: forecast.Forecasts) -> None:
    """Draws the picture and the page, if there was a row; of many series a page with their table."""
    if not forecasts.ahead():
        return
    if isinstance(forecasts, forecast.FleetForecasts):
        with checked_path("out", out, "a folder that can be written", "all is saved; give it room"):
            plotting.write_page(plotting.fleet_page(out), out / "report.html")
        return
    ahead = [f"{forecasts.line_of(ahead)},,\n" for ahead in forecasts.ahead()]
    rows = forecast.read_predictions(out / "predictions.csv", ahead)
    with checked_path("out", out, "a folder that can be written", "all is saved; give it room"):
        plotting.plot_forecast(rows, forecasts.target, out / "forecast.png")
        plotting.write_page(plotting.forecast_page(out, rows), out / "report.html")


def _finish(out: Path, forecasts: forecast.Forecasts, console: Console) -> None:
    """Draws, and prints the scores and the next forecast."""
    _draw(out, forecasts)
    if isinstance(forecasts, forecast.FleetForecasts):
        files = "predictions.csv, report.html, config.json, checkpoints"
        _format.say(console, *forecasts.summary(), f"{out}: {files}")
        return
    time, _, value, lower, upper = next(csv.reader([forecasts.line_of(forecasts.ahead()[0])]))
    interval = f"{forecasts.coverage:.0%} interval {lower} to {upper}" if lower else "no interval yet"
    _format.say(
        console,
        *forecasts.summary(),
        f"next, {time}: {value}, {interval}",
        f"{out}: predictions.csv, report.html, forecast.png, config.json, checkpoints",
    )
