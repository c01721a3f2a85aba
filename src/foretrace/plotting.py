"""Pictures of runs, drawn with matplotlib's objects and no global state."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

# Okabe and Ito: told apart by colour-blind readers too.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_GREY = "#666666"


def plot_run(records: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draws the curve of one run: curriculum length T above, bits per character below.

    Args:
        records: what `training.run` yielded, for one seed.
        title: what was trained.
        path: PNG file to write.
    """
    figure = Figure(figsize=(7.2, 5.4), dpi=150, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    last = records[-1]["step"]
    steps, heights = _staircase(records)
    above.step(steps, heights, where="post", color=_COLORS[0], linewidth=2)
    above.annotate(
        f"T = {heights[-1]}", (last, heights[-1]), xytext=(6, 0), textcoords="offset points",
        color=_COLORS[0], va="center", fontweight="bold", annotation_clip=False,
    )  # fmt: skip
    above.set_title(title, loc="left", fontsize=11)
    above.set_ylabel("longest sequence, T")
    above.yaxis.set_major_locator(MaxNLocator(integer=True))
    above.set_ylim(0, 1.1 * max(heights[-1], 4))

    steps = np.array([record["step"] for record in records])
    bits = np.array([record["bits"] for record in records])
    below.plot(steps, bits, color=_COLORS[1], linewidth=1.2)
    below.axhline(0.15, color=_GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    below.annotate(
        "T rises\nbelow 0.15", (1, 0.15), xycoords=("axes fraction", "data"), xytext=(6, 0),
        textcoords="offset points", color=_GREY, va="center", fontsize=8, annotation_clip=False,
    )  # fmt: skip
    below.set_ylabel("bits per character")
    below.set_ylim(0, max(0.3, 1.05 * float(np.quantile(bits, 0.98))))
    below.set_xlabel("time steps")
    for axes in (above, below):
        _plain(axes, last)
    _save(figure, path)


def plot_comparison(curves: dict[str, tuple[Any, Any]], title: str, path: Path) -> None:
    """Draws curriculum length against time steps: a line and a band over seeds per learner.

    Args:
        curves: for each label the steps (n,) and the values (seeds, n).
        title: what was compared.
        path: PNG file to write.
    """
    figure = Figure(figsize=(7.2, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    ends, last, top = [], 1, 4.0
    for index, (label, (steps, values)) in enumerate(curves.items()):
        values = np.asarray(values, float)
        color, line = _COLORS[index % len(_COLORS)], ("-", "--")[index // len(_COLORS) % 2]
        mean = values.mean(axis=0)
        if len(values) > 1:
            low, high = values.min(axis=0), values.max(axis=0)
            axes.fill_between(steps, low, high, color=color, alpha=0.18, linewidth=0)
        axes.plot(steps, mean, line, color=color, linewidth=1.8)
        ends.append((float(mean[-1]), label, color))
        last, top = max(last, int(steps[-1])), max(top, float(values.max()))
    axes.set_ylim(0, 1.08 * top)
    places = _spread([end for end, _, _ in ends], gap=0.055 * 1.08 * top, top=1.08 * top)
    for (end, label, color), place in zip(ends, places, strict=True):
        moved = abs(end - place) > 0.01 * top
        axes.annotate(
            label, (last, end), xytext=(1.03 if moved else 1.01, place),
            textcoords=("axes fraction", "data"), color=color, va="center", fontsize=9,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6} if moved else None,
        )  # fmt: skip
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_ylabel("longest sequence, T")
    axes.set_xlabel("time steps  (line: mean over seeds, band: their range)")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(axes, last)
    _save(figure, path)


def _staircase(records: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """Steps and values of T, one pair for each rise, from the first step to the last."""
    pairs = [(1, 0), *((t, step) for record in records for t, step in record["raised"])]
    pairs.append((pairs[-1][0], records[-1]["step"]))
    return [step for _, step in pairs], [t for t, _ in pairs]


def _spread(ends: list[float], gap: float, top: float) -> list[float]:
    """Moves label heights apart until they are `gap` from each other, and below `top`."""
    order = np.argsort(ends, kind="stable")
    places = np.array(ends, float)
    for _ in range(200):
        for low, high in pairwise(order):
            lack = gap - (places[high] - places[low])
            if lack > 0:
                places[low] -= lack / 2
                places[high] += lack / 2
        places += max(0.0, gap / 2 - places.min()) - max(0.0, places.max() - top)
    return places.tolist()


def _plain(axes: Axes, last: int) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlim(0, last)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": "foretrace"})
