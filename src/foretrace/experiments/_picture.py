"""Charts as a picture: direct labels, bands over seeds, dashed theory."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    LogFormatterSciNotation,
    LogLocator,
    NullLocator,
    ScalarFormatter,
)

from foretrace.experiments._experiment import Chart, Experiment, Line

# Okabe and Ito, then Tol: told apart by colour-blind readers too.
_COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#7A5C00",
    "#8B8BDB",
    "#882255",
    "#44AA99",
    "#AA4499",
    "#DDCC77",
    "#332288",
)
_GREY = "#666666"
_GAP = 0.23  # inches between labels
_FAR = 1e30  # where a line is that has diverged with all its seeds


def draw_record(experiment: Experiment, record: dict[str, Any], path: Path) -> None:
    """Draws the charts of an experiment's record side by side; a label has one colour in all of them.

    Args:
        experiment: what was measured.
        record: what `perform` returned or `load` read.
        path: PNG file to write.
    """
    charts, seeds = experiment.charts(record["result"]), record["settings"]["seeds"]
    shown = "mean of" if all(chart.points for chart in charts) else "line mean, band range over"
    title = f"{experiment.name}: " + (f"{shown} {seeds} seeds" if seeds > 1 else "one seed")
    columns = 3 if len(charts) % 3 == 0 else min(2, len(charts))
    rows = math.ceil(len(charts) / columns)
    height = max(3.1, *(_GAP * (len(chart.lines) + 3) for chart in charts))
    figure = Figure(figsize=(4.4 * columns, height * rows + 0.4), dpi=110, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    labels = [line.label for chart in charts for line in chart.lines if not line.theory]
    colors = {label: _COLORS[i % len(_COLORS)] for i, label in enumerate(dict.fromkeys(labels))}
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, chart in zip(panels, charts, strict=False):
        _panel(axes, chart, colors, _GAP / height)
    for axes in panels[len(charts) :]:
        axes.set_visible(False)
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": "foretrace"})


def _panel(axes: Axes, chart: Chart, colors: dict[str, str], gap: float) -> None:
    low = -np.inf if chart.floor is None else chart.floor
    means = []
    for line in chart.lines:
        color = _GREY if line.theory else colors[line.label]
        y = np.ma.masked_invalid(np.maximum(np.asarray(line.y, float), low))
        means.append(np.ma.filled(y.mean(axis=0), _FAR))
        for x, value in _lost(line):
            axes.plot(x, value, color=color, marker="x", ms=6, mew=1.6, zorder=3)
            axes.annotate(
                "a seed diverged", (x, value), xytext=(0, 8), textcoords="offset points", ha="center",
                color=color, fontsize=7.5,
            )  # fmt: skip
        if len(y) > 1:
            axes.fill_between(line.x, y.min(axis=0), y.max(axis=0), color=color, alpha=0.18, linewidth=0)
        style: dict[str, Any] = {"linewidth": 1.6, "marker": "o" if len(line.x) < 9 else "", "ms": 3.5}
        if chart.points:
            style = {"linewidth": 0, "marker": ".", "ms": 3 if len(line.x) > 1 else 9}
        if line.theory:
            style = {"linewidth": 1, "linestyle": (0, (5, 3)), "marker": "D" if len(line.x) == 1 else ""}
        axes.plot(line.x, means[-1], color=color, **style)
    _scales(axes, chart)
    least, most = axes.get_ylim()
    axes.set_ylim(least if chart.floor is None else chart.floor, chart.ceiling or most)
    _label(axes, chart, means, colors, gap)
    axes.set_title(chart.title, loc="left", fontsize=9.5)
    axes.set_xlabel(chart.x, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _lost(line: Line) -> list[tuple[Any, Any]]:
    """Where a seed was last seen before it diverged."""
    ends = [(seed, np.flatnonzero(~np.isfinite(seed))) for seed in np.asarray(line.y, float)]
    return [(line.x[lost[0] - 1], seed[lost[0] - 1]) for seed, lost in ends if lost.size and lost[0] > 0]


def _scales(axes: Axes, chart: Chart) -> None:
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
    else:
        axes.xaxis.set_major_formatter(EngFormatter(sep="") if max(x) > 10 else ScalarFormatter())
    if min(x) < max(x):
        axes.set_xlim(min(x), max(x))


def _label(axes: Axes, chart: Chart, means: list[np.ndarray], colors: dict[str, str], gap: float) -> None:
    """Names at the right ends of lines, moved apart where they touch, or where a line leaves the frame.

    `gap` is what must lie between them, of the panel's height.
    """
    ends: list[tuple[float, float, str, str]] = []
    left: dict[bool, int] = {True: 0, False: 0}  # lines that left so far: above, below
    for line, mean in zip(chart.lines, means, strict=True):
        color = _GREY if line.theory else colors[line.label]
        points = np.column_stack([line.x, mean])
        places = axes.transAxes.inverted().transform(axes.transData.transform(points))
        inside = (places[:, 1] > 1e-6) & (places[:, 1] < 1)
        away = places[np.flatnonzero(inside)[-1] :][0] if inside.any() else places[-1]
        if inside[-1] or not 0.05 < away[0] < 0.97:
            below = " (below)" if places[-1, 1] < 1e-6 and "y" in chart.log and not inside.any() else ""
            ends.append((float(places[-1, 1]), float(places[-1, 0]), line.label + below, color))
            continue
        above = bool(places[-1, 1] > 0.5)
        first, step = left[above] == 0, gap * left[above]
        left[above] += 1
        axes.annotate(
            line.label, (float(away[0]), 0.96 - step if above else 0.05 + step), xycoords="axes fraction",
            xytext=(-8 if first else 8, 0), textcoords="offset points", ha="right" if first else "left",
            color=color, va="center", fontsize=8.5,
        )  # fmt: skip
    heights = np.clip([height for height, *_ in ends], 0.0, 1.0)
    for height, place, (_, end, label, color) in zip(heights, _apart(heights, gap), ends, strict=True):
        moved = chart.points or abs(height - place) > 0.02 or end < 0.98
        axes.annotate(
            label, (end, height), xytext=(1.07 if moved else 1.02, place), xycoords="axes fraction",
            textcoords="axes fraction", color=color, va="center", fontsize=8.5, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5} if moved else None,
        )  # fmt: skip


def _apart(heights: np.ndarray, gap: float) -> np.ndarray:
    order, places = np.argsort(heights, kind="stable"), heights.copy()
    for _ in range(200):
        for low, high in pairwise(order):
            lack = gap - (places[high] - places[low])
            if lack > 0:
                places[low] -= lack / 2
                places[high] += lack / 2
        places += max(0.0, -places.min()) - max(0.0, places.max() - 1)
    return places
