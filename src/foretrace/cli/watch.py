"""`foretrace watch`: a run in a browser, while it goes on or after."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from foretrace import plotting
from foretrace._checks import UserError, checked_path
from foretrace.cli import _format, _job, compare, train
from foretrace.cli._parse import parse
from foretrace.cli._server import Pages, server_of
from foretrace.cli._tasks import options_for, problem_of
from foretrace.runs._config import read_config
from foretrace.runs._folder import read_records


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watch:
    """Show a run in a browser on this machine, and renew the page while the run goes on.

    The page is that of report.html. Only 127.0.0.1 is served, only this page, and nothing is written.
    Ctrl-C ends it.

    Examples:
      foretrace watch runs/live
      foretrace watch runs/big --port 9000
    """

    run: tyro.conf.Positional[Path]
    """The folder of a run of foretrace forecast, train or compare."""
    port: _job.OptionalInt = None
    """Port on 127.0.0.1; 8471 unless given, or a free one where that is taken."""


def run(words: Sequence[str]) -> int:
    """Runs the command with the words typed after it."""
    options = parse(Watch, words, "foretrace watch")
    draw = _drawer(options.run)
    pages = Pages(lambda: _page_or_reason(draw, options.run), lambda: _mark(options.run))
    with server_of(pages, options.port) as server:
        host, port = server.server_address[:2]
        print(f"http://{host}:{port}/  (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("foretrace: watched until the keyboard ended it.", flush=True)
    return 0


def _drawer(run: Path) -> Callable[[], plotting.Page]:
    """The function that draws the page of a run, after its kind."""
    config = read_config(run)
    if config is None:
        raise UserError(
            f"run must be a folder with a run; got {str(run)!r}; see foretrace forecast --help."
        )
    if config.get("kind") == "forecast":
        page = plotting.fleet_page if config.get("series") else plotting.forecast_page
        return lambda: page(run)
    first, *words = [str(word) for word in config.get("command") or [""]]
    if first in ("train", "compare"):
        return (_trained if first == "train" else _compared)(run, words)
    raise UserError(
        f"run must have a config.json that foretrace forecast, train or compare wrote; got {str(run)!r}; "
        "choose the folder of such a run."
    )


def _page_or_reason(draw: Callable[[], plotting.Page], run: Path) -> plotting.Page:
    """The page; of a run that has just begun, the reason why there is none yet."""
    try:
        return draw()
    except UserError as error:
        if not (run / "lock").exists():
            raise
        return plotting.Page("No page yet", [f"{error}"])


def _mark(run: Path) -> str:
    """What changes when a run goes on: sizes and times of the files that its page is drawn from."""
    marks = []
    for name in ("predictions.csv", "metrics.jsonl", "results.json", "checkpoints"):
        with contextlib.suppress(OSError):
            status = (run / name).stat()
            marks.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return ", ".join(marks)


def _trained(run: Path, words: list[str]) -> Callable[[], plotting.Page]:
    """The page of a run of `foretrace train`."""
    task, words = _format.split_task(words, "foretrace train")
    options = parse(options_for(train.Train, task, ""), words, f"foretrace train {task}")
    problem = problem_of(task, options)
    title = train.title_of(task, problem, train.named(options))
    return lambda: plotting.charts_page(plotting.run_charts(_records(run), problem.task), title)


def _compared(run: Path, words: list[str]) -> Callable[[], plotting.Page]:
    """The page of a run of `foretrace compare`, with the learners that have begun."""
    task, words = _format.split_task(words, "foretrace compare")
    options = parse(options_for(compare.Compare, task, ""), words, f"foretrace compare {task}")
    problem = problem_of(task, options)

    def draw() -> plotting.Page:
        records: dict[str, list[dict[str, Any]]] = {}
        for record in _records(run):
            records.setdefault(record["learner"], []).append(record)
        curves = compare.curves_of(problem, options.seeds, records)
        chart = plotting.comparison_chart(curves, problem.main)
        ends = run / "results.json"  # at its end
        tables = [compare.table_of(problem, json.loads(ends.read_text()))] if ends.exists() else []
        return plotting.charts_page([chart], compare.title_of(task, problem, options.seeds), tables=tables)

    return draw


def _records(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics, of which there is one at least."""
    with checked_path("run", run, "a folder that can be read", "give it permission"):
        records = read_records(run / "metrics.jsonl")
    if not records:
        raise UserError(
            f"run must have a line of metrics; got {str(run)!r} without one; wait for its first chunk."
        )
    return records
