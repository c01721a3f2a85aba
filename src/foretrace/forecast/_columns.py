"""The columns that are read, by the names that a heading has."""

import csv
import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

from foretrace._checks import UserError

_SHOWN = 8  # names in a message


class Columns(NamedTuple):
    """The columns that are read.

    Attributes:
        target: what is forecast.
        time: column of the time stamps; with None rows are counted.
        features: columns that help, as names or in a line with commas between them.
        series: column of the series that a row belongs to; None where there is only one.
    """

    target: str
    time: str | None
    features: tuple[str, ...] | str
    series: str | None = None

    @property
    def names(self) -> list[str]:
        """All of them."""
        others = [name for name in (self.time, self.series) if name]
        return [self.target, *others, *self.features]

    def among(self, heading: Sequence[str]) -> "Columns":
        """The same, with the names as the heading has them."""

        def known(name):
            return name if name in heading else name.strip()

        features = self.features
        names = split_names(features, heading) if isinstance(features, str) else map(known, features)
        time, series = (known(name) if name else None for name in (self.time, self.series))
        return Columns(known(self.target), time, tuple(names), series)

    def check(self, heading: Sequence[str]) -> None:
        """Raises UserError unless each of them is one column of the heading."""
        for option, names in (
            ("target", [self.target]),
            ("time", [self.time]),
            ("series", [self.series]),
            ("features", self.features),
        ):
            for name in names:
                if name is not None and name not in heading:
                    raise UserError(
                        f"{option} must be among the {_listed(name, heading)}; got {name!r}; choose one."
                    )
                if heading.count(name) > 1:
                    raise UserError(
                        f"{option} must be one column; got {name!r}, the name of "
                        f"{heading.count(name)} columns; give them different names."
                    )


def split_names(text: str, heading: Sequence[str]) -> list[str]:
    """The names in a line with commas between them; a name of the heading may have commas itself."""
    known = {_plain(name): name for name in heading}
    parts = next(csv.reader([text], skipinitialspace=True), [])
    names, start = [], 0
    while start < len(parts):
        # As many parts as make a name of the heading, else one.
        ends = range(len(parts), start, -1)
        end = next((end for end in ends if _plain(",".join(parts[start:end])) in known), start + 1)
        part = ",".join(parts[start:end])
        names.append(known.get(_plain(part), part.strip()))
        start = end
    return [name for name in names if name]


def _plain(name: str) -> str:
    return re.sub(r"\s*,\s*", ",", name.strip())


def _listed(name: str, heading: Sequence[str]) -> str:
    """The columns in words: all of them if they are few, else those that are named alike."""
    if len(heading) <= _SHOWN:
        return f"columns {', '.join(heading)}"
    lower = {column.lower(): column for column in heading}
    near = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.4)]
    if near:
        return f"{len(heading):,} columns, of which {', '.join(near)} {_are(near)} named most alike"
    return f"{len(heading):,} columns, which begin with {', '.join(heading[:3])}"


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
