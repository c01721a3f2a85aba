"""Experiments: a paper's claim as data, with the functions that measure, judge and draw it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from foretrace.plotting import Chart
from foretrace.runs._resumable import PartCache

SCALES = ("quick", "day", "full")


class Reported(NamedTuple):
    """A figure that a paper or its authors' code gives.

    Attributes:
        what: the quantity, in words.
        value: the figure, with its spread if that is known.
        source: where it stands.
        confirmed: whether a source has it, and not only our memory.
    """

    what: str
    value: str
    source: str
    confirmed: bool


class Finding(NamedTuple):
    """One claim held against one result.

    Attributes:
        claim: the statement.
        holds: whether it is.
        measured: the figures that decide it, in words.
    """

    claim: str
    holds: bool
    measured: str


class Experiment(NamedTuple):
    """A claim of a paper, and the functions that show whether it holds here.

    Attributes:
        name: the word after `foretrace reproduce`.
        claim: the claim, in one sentence.
        protocol: the measurement, in a paragraph.
        source: paper and place.
        reported: the paper's figures.
        deviations: every known difference from the paper.
        scales: settings at "quick", "day" and "full"; each has `seeds`.
        run: `(settings, say, part) -> result`, JSON-able; `say` is called with a line per part, and
            `part(name, make)` is `make()`, which is kept (see `PartCache`; `part.long` for hours).
        check: `(result) -> findings`.
        table: `(result) -> rows` of text, the first one its heading: our figures.
        charts: `(result) -> charts`.
    """

    name: str
    claim: str
    protocol: str
    source: str
    reported: tuple[Reported, ...]
    deviations: tuple[str, ...]
    scales: dict[str, dict[str, Any]]
    run: Callable[[dict[str, Any], Callable[[str], None], PartCache], dict[str, Any]]
    check: Callable[[dict[str, Any]], list[Finding]]
    table: Callable[[dict[str, Any]], list[tuple[str, ...]]]
    charts: Callable[[dict[str, Any]], list[Chart]]


def mean_spread(values: Any, digits: int = 3) -> str:
    """Mean and standard deviation over seeds, in words; seeds that diverged are counted apart."""
    values = np.ravel(np.asarray(values, float))
    known = values[np.isfinite(values)]
    if not known.size:
        return "diverged"
    text = f"{np.mean(known):.{digits}g} ± {np.std(known):.2g}"
    lost = values.size - known.size
    return f"{text}, {lost} of {values.size} diverged" if lost else text
