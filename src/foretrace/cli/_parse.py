"""Options from words, with what is wrong said in one sentence."""

import contextlib
import io
import re
from collections.abc import Sequence
from typing import TypeVar

import tyro

from foretrace._checks import UserError

_T = TypeVar("_T")


def parse(options: type[_T], words: Sequence[str], prog: str) -> _T:
    """Parses with tyro.

    Args:
        options: a dataclass.
        words: what was typed after `prog`.
        prog: the command, as typed.

    Raises:
        ValueError: the words do not fit, in one sentence where tyro draws a box.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(options, args=words, prog=prog)
    except SystemExit as stop:
        if not stop.code:
            raise
        # Tyro draws a box, in Unicode or in ASCII; what matters stands between its first two rules.
        body = re.split(r"(?m)^.*(?:─{3}|-{3}).*$", said.getvalue())[1]
        text = " ".join(line.strip("│ ") for line in body.splitlines()).strip()
        text = text.split("Got errors")[0].strip().rstrip(".")
        text = re.sub(r"no type matching .* could be instantiated from", "it must be an int, got", text)
        raise UserError(f"{text}; see {prog} --help.") from None
