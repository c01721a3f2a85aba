"""`foretrace bench`: what a step of every learner takes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from foretrace import experiments
from foretrace._checks import UserError, checked_path
from foretrace._format import columns
from foretrace.cli._parse import parse


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """Time one step of every learner at named, permanent settings, beside the products it needs.

    Examples:
      foretrace bench
      foretrace bench highway-128 rtrl-64 --out now.json
      foretrace bench --compare before.json now.json
    """

    settings: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of settings; all of them unless given."""
    repeats: int = 7
    """Runs of every loop, in turns; median, least and largest are shown."""
    device: Literal["cpu", "gpu"] | None = None
    """Where to run; the default device of JAX unless given."""
    out: Path | None = None
    """JSON file to write; it must not exist yet."""
    compare: tuple[Path, Path] | None = None
    """Two JSON files: show the ratios of their times, and time nothing."""


def run(words: Sequence[str]) -> None:
    """Runs the command with the words typed after it."""
    bench(parse(Bench, words, "foretrace bench"))


def bench(options: Bench) -> None:
    """Times the learners, or compares two records of their times."""
    if options.compare:
        records = (experiments.read_bench(path) for path in options.compare)
        print(*columns(experiments.compare_records(*records), right=range(2, 7), rule=True), sep="\n")
        return
    if not 1 <= options.repeats <= 1000:
        raise UserError(f"repeats must be an int from 1 to 1000; got {options.repeats}; use 7.")
    known = (*experiments.SETTINGS, *experiments.AGENT_SETTINGS)
    for name in options.settings:
        if name not in known:
            raise UserError(
                f"setting must be one of {', '.join(known)}; got {name!r}; leave it out for all."
            )
    if options.out and (options.out.exists() or not options.out.parent.is_dir()):
        raise UserError(
            f"out must be a new file in a folder that exists; got {options.out}; choose another."
        )
    if options.device:
        experiments.choose_device(options.device)
    record: dict[str, Any] = experiments.environment()
    print(", ".join(f"{key} {value}" for key, value in record.items()))
    record["settings"] = [
        (experiments.measure_agents if name in experiments.AGENT_SETTINGS else experiments.measure_setting)(
            name, options.repeats
        )
        for name in options.settings or known
    ]
    print("", *columns(experiments.table_of(record), right=range(2, 5), rule=True), sep="\n")
    if options.out:
        with checked_path("out", options.out, "a file that can be written", "give it room and permission"):
            experiments.save(record, options.out)
