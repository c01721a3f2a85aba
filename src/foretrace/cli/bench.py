"""`foretrace bench`: what a step of every learner takes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from foretrace._checks import UserError, checked_path
from foretrace.cli._parse import parse
from foretrace.experiments import _bench as timing
from foretrace.runs._folder import to_bytes


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
        old, new = (timing.read_record(path) for path in options.compare)
        for setting, learner, before, after, ratio in timing.compare_records(old, new):
            print(f"{setting:12} {learner:10} {before:10.1f} us {after:10.1f} us {ratio:6.2f} x")
        return
    if not 1 <= options.repeats <= 1000:
        raise UserError(f"repeats must be an int from 1 to 1000; got {options.repeats}; use 7.")
    unknown = [name for name in options.settings if name not in timing.SETTINGS]
    if unknown:
        known = ", ".join(timing.SETTINGS)
        raise UserError(f"setting must be one of {known}; got {unknown[0]!r}; leave it out for all.")
    if options.out and (options.out.exists() or not options.out.parent.is_dir()):
        raise UserError(
            f"out must be a new file in a folder that exists; got {options.out}; choose another."
        )
    if options.device:
        timing.choose_device(options.device)
    record: dict[str, Any] = timing.environment()
    print(", ".join(f"{key} {value}" for key, value in record.items()))
    names = options.settings or tuple(timing.SETTINGS)
    record["settings"] = [timing.measure_setting(name, options.repeats) for name in names]
    if options.out:
        with checked_path("out", options.out, "a file that can be written", "give it room and permission"):
            options.out.write_bytes(to_bytes(record))
