"""Names written beside the lines they belong to, no name on another."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from foretrace.plotting._style import SMALL

_GAP = 0.17  # inches from one label's middle to the next one's; a line of text is 0.14 high


class Curve(NamedTuple):
    """A drawn line that wants its name: points in data coordinates, (n,) each."""

    label: str
    color: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray


def spread_labels(heights: Sequence[float] | np.ndarray, gap: float, high: float = 1.0) -> np.ndarray:
    """Heights at least `gap` apart, between 0 and `high`, with the least sum of squared moves.

    Args:
        heights: where labels would be, (n,), in any order, which is kept.
        gap: least distance; where n of them do not fit, they reach below 0.
        high: largest height.

    Returns:
        Where labels are, (n,).
    """
    count, order = len(heights), np.argsort(heights, kind="stable")
    steps = gap * np.arange(count)
    free = np.asarray(heights, float)[order] - steps
    # With gaps subtracted this is isotonic regression; its min-max formula.
    levels = [
        max(min(free[first:last].mean() for last in range(i + 1, count + 1)) for first in range(i + 1))
        for i in range(count)
    ]
    places = np.empty(count)
    places[order] = np.clip(levels, 0.0, high - gap * (count - 1)) + steps
    return places


def label_curves(figure: Figure, panels: Sequence[tuple[Axes, Sequence[Curve]]]) -> None:
    """Names all curves of all panels: in a column right of a panel, or where a curve leaves its frame.

    Args:
        figure: what the panels are part of; laid out here, since labels need the size of a panel.
        panels: axes with their final limits, and their curves.
    """
    figure.draw_without_rendering()
    sizes = [axes.get_window_extent() for axes, _ in panels]
    for (axes, curves), size in zip(panels, sizes, strict=True):
        _label(axes, curves, _GAP * figure.dpi / size.height, figure.dpi / size.width)


def _label(axes: Axes, curves: Sequence[Curve], gap: float, inch: float) -> None:
    """`gap` and `inch` are fractions of the panel's height and width."""
    ends: list[tuple[float, float, str, str]] = []
    exits = {True: 0, False: 0}  # curves that left through the top, the bottom
    for label, color, *points in curves:
        to_panel = axes.transData + axes.transAxes.inverted()
        places = to_panel.transform(np.column_stack(points))
        inside = (places[:, 1] > 1e-6) & (places[:, 1] < 1)
        x, y = places[-1]
        away = places[np.flatnonzero(inside)[-1], 0] if inside.any() else x
        if inside[-1] or not 0.05 < away < 0.97:
            below = " (below)" if y < 1e-6 and axes.get_yscale() == "log" and not inside.any() else ""
            ends.append((float(x), float(np.clip(y, 0, 1)), label + below, color))
            continue
        above = bool(y > 0.5)
        place = float(away), (0.96 - gap * exits[True]) if above else (0.05 + gap * exits[False])
        # The first stands left of its curve, where that has not been yet; the next would be crossed by it.
        width = (0.6 * len(label) * SMALL / 72 + 0.12) * inch
        left = place[0] > width and (exits[above] == 0 or place[0] + width > 1)
        axes.annotate(
            label, place, xycoords="axes fraction", xytext=(-8 if left else 8, 0),
            textcoords="offset points", ha="right" if left else "left", color=color, va="center",
            fontsize=SMALL,
        )  # fmt: skip
        exits[above] += 1
    places = spread_labels([end[1] for end in ends], gap)
    leaders = [abs(y - place) > gap / 4 or x < 0.95 for (x, y, *_), place in zip(ends, places, strict=True)]
    column = 1 + (0.18 if any(leaders) else 0.07) * inch
    for (x, y, label, color), place, leader in zip(ends, places, leaders, strict=True):
        axes.annotate(
            label, (x, y), xytext=(column, place), xycoords="axes fraction", textcoords="axes fraction",
            color=color, va="center", fontsize=SMALL, annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": color, "linewidth": 0.5, "relpos": (0, 0.5),
                "shrinkA": 1, "shrinkB": 0,
            } if leader else None,
        )  # fmt: skip
