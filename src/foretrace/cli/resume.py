"""`foretrace resume`: go on with a run."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from foretrace import runs
from foretrace._checks import UserError
from foretrace.cli import train
from foretrace.cli._parse import parse


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resume:
    """Go on with a run that was stopped, killed or cut off, bit for bit as if nothing had happened.

    Everything is as it was given to foretrace train; only these options may differ.

    Examples:
      foretrace resume runs/ok
      foretrace resume runs/ok --on-nonfinite skip
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    checkpoint_every: str | None = None
    """How often all that continues is saved: every so many steps, as 100000, or minutes, as 10m."""
    on_nonfinite: Literal["stop", "skip"] | None = None
    """What to do about numbers that are not finite."""


def run(words: Sequence[str]) -> int:
    """Runs the command with the words typed after it."""
    options = parse(Resume, words, "foretrace resume")
    config = runs.read_config(options.run)
    if config is None:
        raise UserError(
            f"run must be a folder with a run; got {str(options.run)!r}; see foretrace train --help."
        )
    command = config.get("command")
    if not isinstance(command, list) or command[:1] != ["train"]:
        raise UserError(
            f"run must have a config.json that can be read and was written by foretrace train; got "
            f"{str(options.run)!r}; give its options to foretrace train again, with --resume."
        )
    changed = {"--checkpoint-every": options.checkpoint_every, "--on-nonfinite": options.on_nonfinite}
    given = [word for name, value in changed.items() if value is not None for word in (name, value)]
    return train.run([*command[1:], *given, "--out", str(options.run), "--resume"])
