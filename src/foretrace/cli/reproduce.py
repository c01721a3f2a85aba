"""`foretrace reproduce`: a paper's claim, measured here and shown beside the paper's figures."""

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from foretrace import experiments
from foretrace._checks import UserError, checked_path
from foretrace._format import columns
from foretrace.cli import _format
from foretrace.cli._parse import parse
from foretrace.runs._progress import TableOfParts
from foretrace.scale import _ray

_RECORDS, _PICTURES, _PAGE = (
    Path("benchmarks/results"),
    Path("docs/experiments"),
    Path("docs/experiments.md"),
)
_WRITABLE = "a folder that can be written", "choose another folder"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Measure a claim of the papers and show the paper's figures and ours; exit 1 if it fails.

    Writes NAME-SCALE.json and NAME-SCALE.png: to benchmarks/results and docs/experiments in a checkout,
    else to reproduced/. What was cut off goes on with the same command: finished parts, and every ten
    minutes how far the next one is, are kept beside the record, in NAME-SCALE.parts.json and the folder
    NAME-SCALE.parts, until it is written.

    Examples:
      foretrace reproduce --list
      foretrace reproduce noise-size
      foretrace reproduce ptb --scale day --data ptb/ --out runs/ptb
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Experiments to run, of those that --list shows."""
    list: bool = False
    """Show every experiment with its claim, and run nothing."""
    page: bool = False
    """Write docs/experiments.md and its pictures from the records, after what was named has run."""
    scale: Literal["quick", "day", "full"] = "quick"
    """quick takes a minute, learners three; day a few hours on two cores; full is the paper's size."""
    seeds: int | None = None
    """Number of seeds; the scale's unless given."""
    data: Path | None = None
    """Folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt, for experiments on text."""
    out: Path | None = None
    """Folder for record and picture."""
    engine: str | None = None
    """ray, or ray://HOST:PORT of a cluster (extra foretrace[ray]): every experiment is a task, which keeps
    its finished parts in --out, a folder that all machines see; one that is killed goes on from there."""


def run(words: Sequence[str]) -> int:
    """Runs the command with the words typed after it; returns 1 if a claim failed."""
    options = parse(Reproduce, words, "foretrace reproduce")
    known = experiments.EXPERIMENTS
    for name in options.names:
        if name not in known:
            raise UserError(f"experiment must be one of {', '.join(known)}; got {name!r}; see --list.")
    if options.seeds is not None and not 1 <= options.seeds <= 1000:
        raise UserError(f"seeds must be an int from 1 to 1000; got {options.seeds}; leave it out.")
    if not (options.names or options.list or options.page):
        raise UserError("experiment must be named; got none; see foretrace reproduce --list.")
    console = Console(emoji=False)  # :100: is a window
    if options.list:
        _format.say(console, *columns([(e.name, e.claim) for e in known.values()]))
        return 0
    _ray.check_engine(options.engine)
    settings = {name: _settings(options, name) for name in options.names}  # all refused before one runs
    folders = _folders(options)
    records = _perform_on(options, settings, words, folders[0], console) if options.engine else {}
    failed = [
        name
        for name in options.names
        if not _reproduce(console, options, name, settings[name], words, folders, records.get(name))
    ]
    if options.page:
        _page(console, *folders)
    return 1 if failed else 0


def _page(console: Console, records: Path, pictures: Path) -> None:
    """The page and every picture, from nothing but the records."""
    known = tuple(experiments.EXPERIMENTS.values())
    for experiment in known:
        for scale, record in experiments.load(records, experiment).items():
            experiments.draw_record(experiment, record, pictures / f"{experiment.name}-{scale}.png")
    page = _PAGE if pictures == _PICTURES else pictures / _PAGE.name
    link = _PICTURES.name if pictures == _PICTURES else "."
    with checked_path("out", page, "a file that can be written", "choose another folder"):
        page.write_text(experiments.page(known, records, link))
    _format.say(console, f"{page} and its pictures, from the records in {records}")


def _folders(options: Reproduce) -> tuple[Path, Path]:
    """Where records and pictures go."""
    if options.out is None and _RECORDS.is_dir():
        folders = _RECORDS, _PICTURES
    else:
        folder = options.out or Path("reproduced")
        folders = folder, folder
    for folder in folders:
        with checked_path("out", folder, *_WRITABLE):
            folder.mkdir(parents=True, exist_ok=True)
    return folders


def _settings(options: Reproduce, name: str) -> dict[str, Any]:
    """The settings of one experiment.

    Raises:
        UserError: an option is none of its own.
    """
    settings: dict[str, Any] = dict(experiments.EXPERIMENTS[name].scales[options.scale])
    if options.seeds is not None:
        settings["seeds"] = options.seeds
    if options.data is not None:
        if "data" not in settings:
            raise UserError(f"data must be left out for {name}; got {options.data}; it reads no file.")
        settings["data"] = str(options.data)
    return settings


def _command(options: Reproduce, name: str, words: Sequence[str]) -> str:
    """The words that reproduce one experiment alone, for its record."""
    others = set(options.names) - {name}
    return " ".join(["foretrace reproduce", *(word for word in words if word not in others)])


def _perform_on(
    options: Reproduce, settings: dict[str, Any], words: Sequence[str], folder: Path, console: Console
) -> dict[str, dict[str, Any]]:
    """Runs every experiment as a task of Ray: their records."""
    names = list(dict.fromkeys(options.names))
    parts = [
        _ray.Part(name, folder, (name, options.scale, settings[name], _command(options, name, words)))
        for name in names
    ]

    def finished(part: _ray.Part) -> int:
        path = experiments.record_path(folder, part.name, options.scale).with_suffix(".parts.json")
        with contextlib.suppress(OSError, ValueError):
            return len(json.loads(path.read_text())["parts"])
        return 0

    ends = [(name, None) for name in names]
    with (
        _ray.connected(str(options.engine), folder) as ray,
        TableOfParts(console, ends, "finished parts") as table,
    ):
        shown = lambda part: table.show(part.name, finished(part))  # noqa: E731
        records = _ray.run_parts(ray, perform_part, parts, shown)
    return dict(zip(names, records, strict=True))


def perform_part(
    folder: Path, name: str, scale: str, settings: dict[str, Any], command: str
) -> dict[str, Any]:
    """Runs one experiment, or the rest of it; returns its record.

    Args:
        folder: for the finished parts.
        name: of the experiment.
        scale: in whose name they are kept.
        settings: of the experiment.
        command: for the record.
    """
    parts = experiments.record_path(folder, name, scale).with_suffix(".parts.json")
    return experiments.perform(experiments.EXPERIMENTS[name], settings, command, lambda line: None, parts)


def _reproduce(
    console: Console,
    options: Reproduce,
    name: str,
    settings: dict[str, Any],
    words: Sequence[str],
    folders: tuple[Path, Path],
    record: dict[str, Any] | None,
) -> bool:
    """Runs one experiment unless it has a record, keeps and shows it; returns whether every claim holds."""
    experiment = experiments.EXPERIMENTS[name]
    _format.say(console, f"{name}, {options.scale}: {experiment.claim}", "")
    path = experiments.record_path(folders[0], name, options.scale)
    parts = path.with_suffix(".parts.json")
    if record is None:
        command = _command(options, name, words)
        record = experiments.perform(
            experiment, settings, command, lambda line: _format.say(console, line), parts
        )
    picture = folders[1] / f"{name}-{options.scale}.png"
    with checked_path("out", folders[0], *_WRITABLE):
        experiments.save(record, path)
        experiments.remove(parts)
        experiments.draw_record(experiment, record, picture)
    _format.say(console, "", "Ours, mean and standard deviation over seeds:")
    _format.say(console, *columns(experiment.table(record["result"])), "", "The paper's:")
    rows = [("figure", "value", "source", "")]
    rows += [(r.what, r.value, r.source, "" if r.confirmed else "UNCONFIRMED") for r in experiment.reported]
    _format.say(console, *columns(rows) if experiment.reported else ["none that we know of"], "")
    for finding in record["findings"]:
        word = "holds:" if finding["holds"] else "FAILS:"
        _format.say(console, f"{word} {finding['claim']}: {finding['measured']}")
    _format.say(console, f"{record['seconds']:.0f} s; {path}, {picture}", "")
    return all(finding["holds"] for finding in record["findings"])
