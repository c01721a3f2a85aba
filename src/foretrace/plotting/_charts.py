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
_AXES = {
    "T": "longest sequence, T",
    "bits": "bits per character",
    "valid": "bits per character, validation",
}


def plot_run(
    records: list[dict[str, Any]], title: str, loss: str, goal: tuple[float, str] | None, path: Path
) -> None:
    """Draws the curve of one run: the loss, and above it what else tells how well it goes, if anything.

    Args:
        records: what `training.run` yielded, for one seed.
        title: what was trained.
        loss: name of the loss in the records.
        goal: a value to draw and what to call it, or None.
        path: PNG file to write.
    """
    above = next((name for name in ("T", "theta") if name in records[0]), None)
    figure = Figure(figsize=(7.2, 5.4 if above else 4.0), dpi=150, layout="constrained")
    rows = figure.subplots(
        1 + bool(above), 1, sharex=True, squeeze=False, height_ratios=[3, 2] if above else None
    )
    last = records[-1]["step"]
    for axes in rows[:, 0]:
        _plain(axes, last)
    if above == "T":
        steps, heights = _staircase(records)
        rows[0, 0].step(steps, heights, where="post", color=_COLORS[0], linewidth=2)
        _end(rows[0, 0], last, heights[-1], f"T = {heights[-1]}", _COLORS[0])
        rows[0, 0].yaxis.set_major_locator(MaxNLocator(integer=True))
        rows[0, 0].set_ylim(0, 1.1 * max(heights[-1], 4))
    elif above:
        values = _bounded([record[above] for record in records])
        rows[0, 0].plot([record["step"] for record in records], values, color=_COLORS[0], linewidth=2)
        _end(rows[0, 0], last, values[-1], f"{above} {values[-1]:.3g}", _COLORS[0])
    rows[0, 0].set_title(title, loc="left", fontsize=11)
    if above:
        rows[0, 0].set_ylabel(_AXES.get(above, above))
    below = rows[-1, 0]
    _draw_loss(below, records, loss)
    if above == "T":
        _level(below, 0.15, "T rises\nbelow 0.15")
    if goal:
        _level(rows[0, 0], *goal, side="left")
    below.set_xlabel("time steps")
    _save(figure, path)


def plot_comparison(
    curves: dict[str, tuple[Any, Any]], title: str, shown: str, goal: tuple[float, str] | None, path: Path
) -> None:
    """Draws one quantity against time steps: a line and a band over seeds per learner.

    Args:
        curves: for each label the steps (n,) and the values (seeds, n).
        title: what was compared.
        shown: name of the quantity in the records.
        goal: a value to draw and what to call it, or None.
        path: PNG file to write.
    """
    figure = Figure(figsize=(7.2, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    rising = shown == "T"
    drawn = {label: _bounded(values) for label, (_, values) in curves.items()}
    last = max(int(steps[-1]) for steps, _ in curves.values())
    everything = np.concatenate([values.ravel() for values in drawn.values()])
    low, high = (0.0, max(4.0, everything.max())) if rising else _range(everything, goal)
    ends = []
    for index, (label, values) in enumerate(drawn.items()):
        steps = curves[label][0]
        color, line = _COLORS[index % len(_COLORS)], ("-", "--")[index // len(_COLORS) % 2]
        mean = values.mean(axis=0)
        if len(values) > 1:
            axes.fill_between(
                steps, values.min(axis=0), values.max(axis=0), color=color, alpha=0.18, linewidth=0
            )
        axes.plot(steps, mean, line, color=color, linewidth=1.8)
        ends.append((float(np.clip(mean[-1], low, high)), label, color))
    margin = 0.08 * (high - low)
    axes.set_ylim(0 if rising else low - margin, high + margin)
    bottom, top = axes.get_ylim()
    if goal:
        _level(axes, *goal, side="left")
    places = _spread([end for end, _, _ in ends], gap=0.055 * (top - bottom), low=bottom, high=top)
    for (end, label, color), place in zip(ends, places, strict=True):
        moved = abs(end - place) > 0.01 * (top - bottom)
        axes.annotate(
            label, (last, end), xytext=(1.03 if moved else 1.01, place),
            textcoords=("axes fraction", "data"), color=color, va="center", fontsize=9,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6} if moved else None,
        )  # fmt: skip
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_ylabel(_AXES.get(shown, shown.replace("_", " ")))
    axes.set_xlabel("time steps  (line: mean over seeds, band: their range)")
    _plain(axes, last)
    if rising:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _save(figure, path)


def _draw_loss(axes: Axes, records: list[dict[str, Any]], loss: str) -> None:
    """The loss of every chunk, and the points where other data were measured."""
    steps = np.array([record["step"] for record in records])
    values = _bounded([record[loss] for record in records])
    axes.plot(steps, values, color=_COLORS[1], linewidth=1.2)
    axes.set_ylabel(_AXES.get(loss, loss.replace("_", " ")))
    if loss == "bits":
        low, top = float(values.min()), max(0.3, 1.05 * float(np.quantile(values, 0.98)))
        axes.set_ylim(0 if low < 0.5 * top else 0.9 * low, top)
    else:
        axes.set_yscale("log")
    for name, color in (("valid", _COLORS[0]), ("test", _COLORS[2])):
        seen = [(record["step"], record[name]) for record in records if name in record]
        if seen:
            axes.annotate(
                "training",
                (steps[0], values[0]),
                xytext=(4, 4),
                textcoords="offset points",
                color=_COLORS[1],
            )
            axes.plot(*zip(*seen, strict=True), "o-", color=color, linewidth=1.2, markersize=4)
            place = (6, 5 if name == "valid" else -7)
            _end(axes, seen[-1][0], seen[-1][1], f"{name} {seen[-1][1]:.4g}", color, place)


def _end(
    axes: Axes, x: int | float, y: int | float, label: str, color: str, offset: tuple[int, int] = (6, 0)
) -> None:
    """Writes what a line is, at its end."""
    axes.annotate(
        label, (x, y), xytext=offset, textcoords="offset points", color=color, va="center",
        fontweight="bold", fontsize=9, annotation_clip=False,
    )  # fmt: skip


def _level(axes: Axes, value: int | float, label: str, side: str = "right") -> None:
    """A dashed line that says what it is, beside the axes or, where the curves end there, within them."""
    axes.axhline(value, color=_GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    within = side == "left"
    axes.annotate(
        label, (0 if within else 1, value), xycoords=("axes fraction", "data"),
        xytext=(6, 3) if within else (6, 0), textcoords="offset points", color=_GREY,
        va="bottom" if within else "center", fontsize=8, annotation_clip=False,
    )  # fmt: skip


def _bounded(values: Any) -> np.ndarray:
    """Numbers that can be drawn, where a run went to infinity too."""
    return np.clip(np.nan_to_num(np.asarray(values, float), nan=1e30), -1e30, 1e30)


def _range(values: np.ndarray, goal: tuple[float, str] | None) -> tuple[float, float]:
    """The heights that matter: without what exploded or was not learned yet, with the goal."""
    low, high = np.quantile(values, [0.0, 0.95])
    if goal:
        # What runs away from the goal is shown until it is ten times as far as the median.
        span = 10 * (float(np.median(abs(values - goal[0]))) or 1.0)
        low, high = min(max(low, goal[0] - span), goal[0]), max(min(high, goal[0] + span), goal[0])
    return float(low), float(max(high, low + 1e-6))


def _staircase(records: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """Steps and values of T, one pair for each rise, from the first step to the last."""
    pairs = [(1, 0), *((t, step) for record in records for t, step in record["raised"])]
    pairs.append((pairs[-1][0], records[-1]["step"]))
    return [step for _, step in pairs], [t for t, _ in pairs]


def _spread(ends: list[float], gap: float, low: float, high: float) -> list[float]:
    """Moves label heights apart until they are `gap` from each other, between `low` and `high`."""
    order = np.argsort(ends, kind="stable")
    places = np.array(ends, float)
    for _ in range(200):
        for lower, upper in pairwise(order):
            lack = gap - (places[upper] - places[lower])
            if lack > 0:
                places[lower] -= lack / 2
                places[upper] += lack / 2
        places += max(0.0, low + gap / 2 - places.min()) - max(0.0, places.max() - high)
    return places.tolist()


def _plain(axes: Axes, last: int) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlim(0, last)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": "foretrace"})


def plot_forecast(predictions: Path, target: str, path: Path) -> None:
    """Draws the last forecasts beside what came, and the errors so far beside those of persistence.

    Args:
        predictions: the file that `foretrace forecast` writes.
        target: what is forecast.
        path: PNG file to write.
    """
    columns = np.genfromtxt(predictions, delimiter=",", skip_header=1, usecols=range(1, 6), ndmin=2)
    horizons = sorted({1, int(columns[:, 0].max(initial=1))})
    figure = Figure(figsize=(7.2, 5.8), dpi=150, layout="constrained")
    above, below = figure.subplots(2, 1)
    shown = columns[columns[:, 0] == horizons[-1]][-200:]
    steps = np.arange(len(shown)) - np.isfinite(shown[:, 4]).sum() + 1
    above.fill_between(steps, shown[:, 2], shown[:, 3], color=_COLORS[0], alpha=0.2, linewidth=0)
    above.plot(steps, shown[:, 1], color=_COLORS[0], linewidth=1.5, label=f"forecast, {horizons[-1]} ahead")
    above.plot(steps, shown[:, 4], ".", color=_COLORS[6], markersize=3, label="what came")
    # A single wild interval of the first rows must not flatten everything else.
    low, high = np.nanpercentile(np.r_[shown[:, 1], shown[:, 4]], [0, 100])
    margin = 0.4 * max(high - low, 1e-9)
    above.set_ylim(low - margin, high + margin)
    above.set_title(f"{target}: the last {len(shown)} forecasts, with intervals", loc="left", fontsize=11)
    above.set_xlabel("rows before the end")
    above.legend(frameon=False, fontsize=8)
    for index, h in enumerate(horizons):
        rows = columns[columns[:, 0] == h]
        # The forecast h ahead of value t was made when value t - h was the last.
        values = columns[columns[:, 0] == 1][:, 4]
        values = values[len(values) - len(rows) :] if len(values) >= len(rows) else values
        errors = abs(rows[:, 1] - rows[:, 4])
        rule = np.full(len(rows), np.nan)
        rule[h:] = abs(values[h:] - values[:-h]) if len(values) > h else np.nan
        known = np.isfinite(errors) & np.isfinite(rule)
        count = np.arange(1, known.sum() + 1)
        if not len(count):
            continue
        places = np.flatnonzero(known)
        for label, found, style in (("foretrace", errors, "-"), ("persistence", rule, "--")):
            mean = np.cumsum(found[known]) / count
            below.plot(
                places, mean, style, color=_COLORS[index], linewidth=1.5, label=f"{label}, {h} ahead"
            )
    if below.lines:
        below.set_xscale("log")
        below.legend(frameon=False, fontsize=8)
    below.set_title("mean absolute error so far", loc="left", fontsize=11)
    below.set_xlabel("rows")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_png(path)
