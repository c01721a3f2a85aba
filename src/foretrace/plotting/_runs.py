"""Pictures of one run, and of several learners beside each other."""

from pathlib import Path
from typing import Any

import numpy as np

from foretrace.plotting._charts import Chart, Line, draw_charts

_TITLES = {
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
    steps = [record["step"] for record in records]
    charts = [_loss_chart(records, loss)]
    if "T" in records[0]:
        risen, heights = _staircase(records)
        line = Line(f"T = {heights[-1]}", risen, [heights])
        charts.insert(0, Chart(_TITLES["T"], "", [line], (), 0.0, 1.1 * max(heights[-1], 4)))
    elif "theta" in records[0]:
        values = _bounded([record["theta"] for record in records])
        charts.insert(0, Chart("theta", "", [Line(f"theta {values[-1]:.3g}", steps, [values])], ()))
    if goal:
        charts[0].lines.append(Line(goal[1], [steps[0], steps[-1]], [[goal[0]] * 2], theory=True))
    draw_charts(charts, title, path, columns=1)


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
    lines = [Line(label, steps, _bounded(values)) for label, (steps, values) in curves.items()]
    values = np.concatenate([line.y.ravel() for line in lines])
    if shown == "T":
        low, high = 0.0, 1.08 * max(4.0, values.max())
    else:
        low, high = _range(values, goal)
        low, high = low - 0.08 * (high - low), high + 0.08 * (high - low)
    if goal:
        lines.append(Line(goal[1], [0, max(line.x[-1] for line in lines)], [[goal[0]] * 2], theory=True))
    x = "time steps  (line: mean over seeds, band: their range)"
    draw_charts([Chart(_title(shown), x, lines, (), low, high)], title, path)


def _loss_chart(records: list[dict[str, Any]], loss: str) -> Chart:
    """The loss of every chunk, and the points where other data were measured."""
    steps, values = [record["step"] for record in records], _bounded([record[loss] for record in records])
    lines = [Line("training", steps, [values])]
    for name in ("valid", "test"):
        points = [(record["step"], record[name]) for record in records if name in record]
        if points:
            measured = _bounded(points)
            lines.append(Line(f"{name} {measured[-1, 1]:.4g}", measured[:, 0].tolist(), [measured[:, 1]]))
    if "T" in records[0]:
        lines.append(Line("T rises below 0.15", [0, steps[-1]], [[0.15] * 2], theory=True))
    if loss != "bits":
        return Chart(_title(loss), "time steps", lines, ("y",))
    low, high = float(values.min()), max(0.3, 1.05 * float(np.quantile(values, 0.98)))
    return Chart(_title(loss), "time steps", lines, (), 0.0 if low < 0.5 * high else 0.9 * low, high)


def _title(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " "))


def _bounded(values: Any) -> np.ndarray:
    """Numbers that can be drawn, where a run went to infinity too."""
    return np.clip(np.nan_to_num(np.asarray(values, float), nan=1e30), -1e30, 1e30)


def _range(values: np.ndarray, goal: tuple[float, str] | None) -> tuple[float, float]:
    """The heights that matter: without what exploded or was not learned yet, with the goal."""
    low, high = np.quantile(values, [0.0, 0.95])
    if goal:
        # A run that leaves the goal is shown until it is ten times as far as the median.
        span = 10 * (float(np.median(abs(values - goal[0]))) or 1.0)
        low, high = min(max(low, goal[0] - span), goal[0]), max(min(high, goal[0] + span), goal[0])
    return float(low), float(max(high, low + 1e-6))


def _staircase(records: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """Steps and values of T, two corners for each rise, from the first step to the last."""
    corners = [(0, 1)]
    for record in records:
        for height, step in record["raised"]:
            corners += [(step, corners[-1][1]), (step, height)]
    steps, heights = zip(*corners, (records[-1]["step"], corners[-1][1]), strict=True)
    return list(steps), list(heights)
