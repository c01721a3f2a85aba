"""Charts as data, and the pictures of them: direct labels, bands over seeds, dashed theory."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import (
    EngFormatter,
    LogFormatterSciNotation,
    LogLocator,
    NullLocator,
    ScalarFormatter,
)

from foretrace.plotting._labels import Curve, label_curves
from foretrace.plotting._style import GREY, Style, frame, new_figure, save, styles_of

_FAR = 1e30  # where a line is that has diverged with all its seeds
_FEW = 9  # points; so many are marked


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
        label: its name, written at its end.
        x: (n,).
        y: (seeds, n); drawn as mean and range.
        theory: a value that was not measured here, drawn dashed.
    """

    label: str
    x: Sequence[float]
    y: Any
    theory: bool = False


class Chart(NamedTuple):
    """One panel of a picture.

    Attributes:
        title: what the y axis shows.
        x: what the x axis shows.
        lines: what is drawn.
        log: logarithmic axes among "x", "x2" (to the base 2) and "y".
        floor: least y shown; what lies below is drawn at the edge.
        ceiling: largest y shown.
        points: draw points and no lines.
    """

    title: str
    x: str
    lines: list[Line]
    log: tuple[str, ...] = ("x", "y")
    floor: float | None = None
    ceiling: float | None = None
    points: bool = False


def draw_charts(charts: Sequence[Chart], title: str, path: Path, columns: int | None = None) -> None:
    """Draws charts as the panels of one picture; a label looks the same in all of them.

    Args:
        charts: at least one.
        title: of the picture.
        path: PNG file to write.
        columns: panels side by side; up to two unless given, which a page of a site shows at half size.
    """
    columns = columns or min(2, len(charts))
    rows = math.ceil(len(charts) / columns)
    width, least = (4.4, 3.1) if columns > 1 else (6.4, 4.0 if rows == 1 else 2.9)
    height = max(least, *(0.23 * (len(chart.lines) + 3) for chart in charts))
    figure = new_figure(width * columns, height * rows + 0.3)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    styles = styles_of(line.label for chart in charts for line in chart.lines if not line.theory)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    named = [(axes, draw_chart(axes, chart, styles)) for axes, chart in zip(panels, charts, strict=False)]
    for axes in panels[len(charts) :]:
        axes.set_visible(False)
    label_curves(figure, named)
    save(figure, path)


def draw_chart(axes: Axes, chart: Chart, styles: dict[str, Style]) -> list[Curve]:
    """Draws one panel, without the names of its lines: returns what is to be named."""
    low = -np.inf if chart.floor is None else chart.floor
    curves, lost = [], 0
    for line in chart.lines:
        color, dashes, marker = (GREY, (0, (5, 3)), "D") if line.theory else styles[line.label]
        y = np.ma.masked_invalid(np.maximum(np.asarray(line.y, float), low))
        curves.append(Curve(line.label, color, line.x, np.ma.filled(y.mean(axis=0), _FAR)))
        for x, value in _last_finite(line):
            axes.plot(x, value, color=color, marker="x", ms=6, mew=1.6, zorder=3)
            lost += 1
        if len(y) > 1:
            axes.fill_between(line.x, y.min(axis=0), y.max(axis=0), color=color, alpha=0.18, linewidth=0)
        style: dict[str, Any] = {"linestyle": dashes, "linewidth": 1.6, "ms": 3.5}
        style["marker"] = marker if len(line.x) < _FEW else ""
        if line.theory:
            style |= {"linewidth": 1, "marker": marker if len(line.x) == 1 else ""}
        elif chart.points:
            style = {"linewidth": 0, "marker": marker, "ms": 1.5 if len(line.x) > 1 else 5}
        axes.plot(line.x, curves[-1].y, color=color, **style)
    _scale(axes, chart)
    least, most = axes.get_ylim()
    axes.set_ylim(least if chart.floor is None else chart.floor, chart.ceiling or most)
    frame(axes, chart.title, chart.x + ("   (cross: a seed diverged)" if lost else ""))
    return curves


def _last_finite(line: Line) -> list[tuple[Any, Any]]:
    """The last point of every seed that diverged."""
    ends = [(seed, np.flatnonzero(~np.isfinite(seed))) for seed in np.asarray(line.y, float)]
    return [(line.x[bad[0] - 1], seed[bad[0] - 1]) for seed, bad in ends if bad.size and bad[0] > 0]


def _scale(axes: Axes, chart: Chart) -> None:
    x = [value for line in chart.lines for value in line.x]
    if "y" in chart.log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
        least, most = axes.get_ylim()
        if most < 100 * least:  # powers of ten alone would leave a tick or two
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf)))
    if "x2" in chart.log:
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(set(x)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
    elif "x" in chart.log:
        axes.set_xscale("log")
        if max(x) < 100 * min(x):  # powers of ten alone would leave a tick or two
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(EngFormatter(sep="") if max(x) > 100 else ScalarFormatter())
            axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_formatter(EngFormatter(sep="") if max(x) > 10 else ScalarFormatter())
    marked = all(len(line.x) < _FEW for line in chart.lines)
    if chart.points or marked:  # half of a marker at the edge would be cut off
        axes.margins(x=0.03)
    elif min(x) < max(x):
        near_zero = not {"x", "x2"} & set(chart.log) and 0 < min(x) < 0.2 * max(x)
        axes.set_xlim(0 if near_zero else min(x), max(x))
