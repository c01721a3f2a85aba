"""Colours, fonts and frames that every picture shares; matplotlib's objects and no global state."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# Okabe and Ito: told apart by colour-blind readers too. Their yellow is left out: it is lost on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#666666"
SMALL = 8.5  # points


class Style(NamedTuple):
    """Colour, line and marker of one label."""

    color: str
    line: Any
    marker: str


def styles_of(labels: Iterable[str]) -> dict[str, Style]:
    """A style for each label, all of them different for up to 21; more colours would not stay apart."""
    rounds = (("-", "o"), ((0, (6, 1.5)), "s"), ((0, (1.5, 1)), "^"))
    styles = {}
    for index, label in enumerate(dict.fromkeys(labels)):
        turn = index // len(PALETTE)
        # Neighbours in a list are often neighbours in a picture: colours come again in another place.
        color = PALETTE[(index + 3 * turn) % len(PALETTE)]
        styles[label] = Style(color, *rounds[turn % len(rounds)])
    return styles


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, with a canvas to be drawn on."""
    figure = Figure(figsize=(width, height), dpi=150, layout=ConstrainedLayoutEngine(h_pad=0.08))
    FigureCanvasAgg(figure)
    return figure


def frame(axes: Axes, title: str, x: str) -> None:
    """Title above, grid behind, no box."""
    axes.set_title(title, loc="left", fontsize=9.5)
    axes.set_xlabel(x, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG whose bytes depend on the picture alone."""
    figure.savefig(path, metadata={"Software": "foretrace"})
