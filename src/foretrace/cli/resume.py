"""`foretrace resume`: go on with a run."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from foretrace._checks import UserError
from foretrace.cli import compare, train
from foretrace.cli._parse import parse
from foretrace.runs._folder import read_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resume:
    """Go on with a run that was stopped, killed or cut off, bit for bit as if nothing had happened.

    Everything is as it was given to foretrace train or compare; only these
    options of a training may differ.

    Examples:
      foretrace resume runs/big
      foretrace resume runs/big --on-nonfinite skip
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    checkpoint_every: str | None = None
    """How often all that continues is saved: every so many steps, as 100000, or minutes, as 10m."""
    on_nonfinite: Literal["stop", "skip"] | None = None
    """At numbers that are not finite: stop with everything saved, or skip the sample."""


def run(words: Sequence[str]) -> int:
    """Runs the command with the words typed after it."""
    options = parse(Resume, words, "foretrace resume")
    config = read_config(options.run)
    if config is None:
        raise UserError(
            f"run must be a folder with a run; got {str(options.run)!r}; see foretrace train --help."
        )
    command = config.get("command")
    commands = {"train": train.run, "compare": compare.run}
    first, *rest = command if isinstance(command, list) and command else [None]
    if first not in commands or not all(isinstance(word, str) for word in rest):
        raise UserError(
            f"run must have a config.json that can be read and was written by foretrace train or compare; "
            f"got {str(options.run)!r}; give its options to that command again, with --resume."
        )
    changes = {"--checkpoint-every": options.checkpoint_every, "--on-nonfinite": options.on_nonfinite}
    changed = [word for name, value in changes.items() if value is not None for word in (name, value)]
    return commands[first]([*rest, *changed, "--out", str(options.run), "--resume"]) or 0
