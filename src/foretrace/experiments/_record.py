"""Records of experiments as JSON files: settings, results, and the machine and versions behind them."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foretrace._checks import UserError
from foretrace.experiments._bench import environment
from foretrace.experiments._experiment import SCALES, Experiment
from foretrace.plotting import draw_charts
from foretrace.runs._resumable import PartCache, to_json


def perform(
    experiment: Experiment,
    settings: dict[str, Any],
    command: str,
    say: Callable[[str], None] = print,
    parts: Path | None = None,
) -> dict[str, Any]:
    """Runs an experiment, or the rest of an unfinished one, and returns its record, ready for JSON.

    Args:
        experiment: to be run.
        settings: one of its `scales`, perhaps with another number of seeds.
        command: the words typed, without the names of other experiments.
        say: called with a line per finished part.
        parts: file of the finished parts, from which an interrupted run goes on: to be removed when the
            record is written, ignored when settings, versions or machine are no longer the same.
    """
    before = environment()
    part = PartCache(parts, {"settings": settings, **before})
    if part:
        say(f"{len(part)} finished parts are in {parts}")
    result = to_json(experiment.run(settings, say, part))
    return {
        "experiment": experiment.name,
        "command": command,
        "settings": settings,
        **before,
        "seconds": round(part.seconds, 1),
        "findings": [finding._asdict() for finding in experiment.check(result)],
        "result": result,
    }


def save(record: dict[str, Any], path: Path) -> None:
    """Writes a record to a file of its own, its lists of numbers in lines; JSON has no NaN: null."""
    plain = _mapped(lambda value: value if math.isfinite(value) else None, float, record)
    text = json.dumps(plain, indent=2, allow_nan=False) + "\n"
    path.write_text(re.sub(r"\[[^][{}\"]*\]", lambda match: " ".join(match[0].split()), text))


def draw_record(experiment: Experiment, record: dict[str, Any], path: Path) -> None:
    """Draws the charts of an experiment's record.

    Args:
        experiment: the one measured.
        record: what `perform` returned or `load` read.
        path: PNG file to write.
    """
    charts, seeds = experiment.charts(record["result"]), record["settings"]["seeds"]
    shown = "mean of" if all(chart.points for chart in charts) else "line mean, band range over"
    title = f"{experiment.name}: " + (f"{shown} {seeds} seeds" if seeds > 1 else "one seed")
    draw_charts(charts, title, path)


def load(folder: Path, experiment: Experiment) -> dict[str, dict[str, Any]]:
    """The records of an experiment in a folder, by scale; in the order quick, day, full."""
    records = {}
    for scale in SCALES:
        path = record_path(folder, experiment.name, scale)
        if path.exists():
            records[scale] = _read(path, experiment)
    return records


def record_path(folder: Path, name: str, scale: str) -> Path:
    """Where the record of an experiment at a scale is kept."""
    return folder / f"{name}-{scale}.json"


def _read(path: Path, experiment: Experiment) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
        if record["experiment"] == experiment.name and "result" in record:
            return record | {"result": _mapped(lambda _: math.nan, type(None), record["result"])}
    except (OSError, ValueError, LookupError, TypeError):
        pass
    raise UserError(
        f"{path} must be a record that foretrace reproduce wrote; got something else; remove it."
    )


def _mapped(function: Callable[[Any], Any], kind: type, value: Any) -> Any:
    """A tree of JSON with a function applied to its values of a kind."""
    if isinstance(value, dict):
        return {key: _mapped(function, kind, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(function, kind, item) for item in value]
    return function(value) if isinstance(value, kind) else value
