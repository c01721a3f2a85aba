"""`foretrace resume`: go on with a run."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from foretrace._checks import UserError
from foretrace.cli import compare, forecast, rl, train
from foretrace.cli._parse import parse
from foretrace.runs._config import read_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resume:
    """Go on with a run that was stopped, killed or cut off, bit for bit as if nothing had happened.

    Everything is as it was given to foretrace train, compare, rl or forecast; only the options below may
    differ, each for the commands that have it.

    Examples:
      foretrace resume runs/big
      foretrace resume runs/big --on-nonfinite skip
      tail -n +1 -F log.csv | foretrace resume runs/live
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    checkpoint_every: str | None = None
    """How often all that continues is saved: every so many steps, as 100000, or minutes, as 10m."""
    on_nonfinite: Literal["stop", "skip"] | None = None
    """At numbers that are not finite: stop with everything saved, or skip the sample."""
    gaps: Literal["stop", "fill", "ignore"] | None = None
    """Of a forecast, at a gap or a repeated time: stop, fill gaps and drop repetitions, or ignore both."""
    on_bad: Literal["stop", "skip"] | None = None
    """Of a forecast, at a row or cell that cannot be read: stop, or go on without it."""


def run(words: Sequence[str]) -> int:
    """Runs the command with the words typed after it."""
    options = parse(Resume, words, "foretrace resume")
    config = read_config(options.run)
    if config is None:
        raise UserError(
            f"run must be a folder with a run; got {str(options.run)!r}; see foretrace train --help."
        )
    command = forecast.command_of(config) if config.get("kind") == "forecast" else config.get("command")
    commands = {"train": train.run, "compare": compare.run, "rl": rl.run, "forecast": forecast.run}
    first, *rest = command if isinstance(command, list) and command else [None]
    if first not in commands or not all(isinstance(word, str) for word in rest):
        raise UserError(
            "run must have a config.json that can be read and was written by foretrace train, compare, rl "
            f"or forecast; got {str(options.run)!r}; give its options to that command again, with --resume."
        )
    changes = {
        f"--{name.replace('_', '-')}": value
        for name, value in dataclasses.asdict(options).items()
        if name != "run" and value is not None
    }
    changed = [word for change in changes.items() for word in change]
    return commands[first]([*rest, *changed, "--out", str(options.run), "--resume"]) or 0
