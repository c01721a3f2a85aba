"""What an experiment is: a paper's claim as data, and what turns it into a verdict and a picture."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from foretrace.plotting import Chart
from foretrace.runs._resumable import PartCache

SCALES = ("quick", "day", "full")


class Reported(NamedTuple):
    """A figure that a paper or its authors' code gives.

    Attributes:
        what: what was measured, in words.
        value: the figure, with its spread if that is known.
        source: where it stands.
        confirmed: whether we found it in a source, and do not only remember it.
    """

    what: str
    value: str
    source: str
    confirmed: bool


class Finding(NamedTuple):
    """One claim held against one result.

    Attributes:
        claim: what should be so.
        holds: whether it is.
        measured: the figures that decide it, in words.
    """

    claim: str
    holds: bool
    measured: str


class Experiment(NamedTuple):
    """A claim of a paper, and what it takes to see whether it holds here.

    Attributes:
        name: what is typed after `foretrace reproduce`.
        claim: the claim, in one sentence.
        protocol: what is done, in a paragraph.
        source: paper and place.
        reported: the paper's figures.
        deviations: every known difference from the paper, or what is ours.
        scales: settings at "quick", "day" and "full"; each has `seeds`.
        run: `(settings, say, part) -> result`, JSON-able; `say` is told one line per finished part, and
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
