"""Lines of text: whole ones only, and what lies between their cells."""

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from foretrace._checks import UserError

_DELIMITERS = "\t;,|"  # of two that fit, the first


class Lines:
    """The lines of a text that end; a last one without an end may still be being written.

    Attributes:
        name: what messages call the text.
        number: of the last line.
        rest: the last line, if it has no end but others have.
    """

    def __init__(self, pieces: Iterable[str], name: str):
        self.name, self.number, self.rest = name, 0, ""
        self._pieces = iter(pieces)
        self._have_ends: bool | None = None  # those of a list may all have none

    def __iter__(self) -> Iterator[str]:
        """The lines that were not yet read."""
        return self

    def __next__(self) -> str:
        """Reads on to the end of a line."""
        while True:
            try:
                piece = next(self._pieces)
            except UnicodeDecodeError:
                raise UserError(
                    f"{self.name} must be text in UTF-8; got other bytes; is it another kind of file?"
                ) from None
            line, self.rest = self.rest + piece, ""
            if self._have_ends is None:
                self._have_ends = line[-1:] in ("\n", "\r")
            if not self._have_ends or line[-1:] in ("\n", "\r"):
                self.number += 1
                return line
            self.rest = line

    def first(self) -> str:
        """Reads the first line that is not blank; empty if there is none."""
        line = next((line for line in self if line.strip()), "")
        if "\0" in line:
            raise UserError(f"{self.name} must be text; got a zero byte; is it another kind of file?")
        if any("\udc80" <= letter <= "\udcff" for letter in line):
            raise UserError(
                f"{self.name} must be text in UTF-8; got other bytes; is it another kind of file?"
            )
        return line

    def give_back(self, line: str) -> None:
        """Makes a line the next one again."""
        self.number -= 1
        self._pieces = itertools.chain([line], self._pieces)


def open_text(path: Path) -> TextIO:
    """Opens a text; bytes that are not UTF-8 become cells that cannot be read."""
    with path.open("rb") as file:
        start = file.read(2)
    encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return path.open(
        encoding=encoding, errors="surrogateescape" if encoding != "utf-16" else None, newline=""
    )


def standard_lines(stream: Any) -> Iterator[str]:
    """Lines of standard input as they arrive.

    Raises:
        UserError: it is closed.
    """
    if stream is None:
        raise UserError(
            "data must be a file or an open standard input; got one that is closed; give a file."
        )
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8-sig", errors="surrogateescape")
    # `readline`, because iterating over a file reads ahead and would hold lines back.
    return iter(stream.readline, "")


def delimiter_of(heading: str, row: str = "") -> str:
    """What lies between the names of a heading, and between as many cells of a row, if there is one."""
    if heading.startswith("sep=") and len(heading.strip()) == len("sep=;"):
        return heading[4]

    def fit(mark):
        names, cells = (
            len(next(csv.reader([line], delimiter=mark, skipinitialspace=True), []))
            for line in (heading, row or heading)
        )
        return names == cells, names

    best = max(map(fit, _DELIMITERS))
    return next(mark for mark in _DELIMITERS if fit(mark) == best) if best[1] > 1 else ","


def is_json(line: str) -> bool:
    """Whether a text that begins with this line is JSON: an object a line, or an array."""
    start = "".join(line.split())[:2]
    return start[:1] == "{" or re.fullmatch(r"\[[\[\]{\d\"-]?", start) is not None
