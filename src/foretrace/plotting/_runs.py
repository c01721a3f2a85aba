"""Pictures of one run, and of several learners beside each other."""

from pathlib import Path
from typing import Any

import numpy as np

from foretrace.plotting._charts import Chart, Line, draw_charts
from foretrace.tasks import Metric, Task, cross_entropy
from foretrace.tasks._task import Measured


def plot_run(records: list[dict[str, Any]], task: Task, title: str, path: Path) -> None:
    """Draws the curve of one run: the loss, and above it the metrics that the task shows.

    Args:
        records: those of `training.run`, for one seed.
        task: names its loss and its metrics.
        title: of the picture.
        path: PNG file to write.
    """
    draw_charts(run_charts(records, task), title, path, columns=1)


def run_charts(records: list[dict[str, Any]], task: Task) -> list[Chart]:
    """The curves of one run as charts, the loss last; arguments as of `plot_run`."""
    others = [metric for metric in task.shown if not metric.is_loss]
    return [*(_metric_chart(records, metric) for metric in others), _loss_chart(records, task)]


def plot_life(records: list[dict[str, Any]], life: Measured, title: str, path: Path) -> None:
    """Draws the curve of an agent's life: what its episodes brought, and below it the error of its values.

    Args:
        records: those of `rl.live`.
        life: names its metrics.
        title: of the picture.
        path: PNG file to write.
    """
    metrics = [metric for metric in life.shown if any(metric.name in record for record in records)]
    charts = [_metric_chart(records, metric) for metric in metrics]
    loss = _metric_chart(records, life.loss_metric)._replace(x="steps", log=("y",))
    draw_charts([*charts, loss], title, path, columns=1)


def plot_comparison(curves: dict[str, tuple[Any, Any]], shown: Metric, title: str, path: Path) -> None:
    """Draws one metric against time steps: a line and a band over seeds per learner.

    Args:
        curves: for each label the steps (n,) and the values (seeds, n).
        shown: the metric.
        title: of the picture.
        path: PNG file to write.
    """
    draw_charts([comparison_chart(curves, shown)], title, path)


def comparison_chart(curves: dict[str, tuple[Any, Any]], shown: Metric) -> Chart:
    """Several learners' curves as a chart; arguments as of `plot_comparison`."""
    lines = [Line(label, steps, _bounded(values)) for label, (steps, values) in curves.items()]
    values = np.concatenate([line.y.ravel() for line in lines])
    if shown.start is not None:
        low, high = 0.0, 1.08 * max(4.0, values.max())
    else:
        low, high = _range(values, shown.goal)
        low, high = low - 0.08 * (high - low), high + 0.08 * (high - low)
    lines += _goal(shown, 0, max(line.x[-1] for line in lines))
    x = "time steps  (line: mean over seeds, band: their range)"
    return Chart(shown.label, x, lines, (), low, high)


def _metric_chart(records: list[dict[str, Any]], metric: Metric) -> Chart:
    """A curriculum as a staircase, another metric as a line."""
    goal = _goal(metric, records[0]["step"], records[-1]["step"])
    if metric.start is not None:
        corners, levels = _staircase(records, metric)
        line = Line(f"{metric.name} = {levels[-1]}", corners, [levels])
        return Chart(metric.label, "", [line, *goal], (), 0.0, 1.1 * max(levels[-1], 4))
    points = [(record["step"], record[metric.name]) for record in records if metric.name in record]
    steps, values = _bounded(points).T
    return Chart(metric.label, "", [Line(f"{metric.name} {values[-1]:.3g}", steps, [values]), *goal], ())


def _loss_chart(records: list[dict[str, Any]], task: Task) -> Chart:
    """The loss of every chunk, and the points where it was measured on other data."""
    loss = task.loss_metric
    steps, values = (
        [record["step"] for record in records],
        _bounded([record[loss.name] for record in records]),
    )
    lines = [Line("training", steps, [values])]
    for metric in task.shown:
        points = [(record["step"], record[metric.name]) for record in records if metric.name in record]
        if metric.is_loss and points:
            measured = _bounded(points)
            label = f"{metric.name} {measured[-1, 1]:.4g}"
            lines.append(Line(label, measured[:, 0].tolist(), [measured[:, 1]]))
        if metric.rises_below is not None:
            label, level = f"{metric.name} rises below {metric.rises_below:g}", metric.rises_below
            lines.append(Line(label, [0, steps[-1]], [[level] * 2], theory=True))
    lines += _goal(loss, steps[0], steps[-1])
    if task.loss.of is not cross_entropy:
        return Chart(loss.label, "time steps", lines, ("y",))
    low, high = float(values.min()), max(0.3, 1.05 * float(np.quantile(values, 0.98)))
    return Chart(loss.label, "time steps", lines, (), 0.0 if low < 0.5 * high else 0.9 * low, high)


def _goal(metric: Metric, first: int | float, last: int | float) -> list[Line]:
    """The line where a metric should arrive, if that is known."""
    return [Line(metric.goal[1], [first, last], [[metric.goal[0]] * 2], theory=True)] if metric.goal else []


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


def _staircase(records: list[dict[str, Any]], metric: Metric) -> tuple[list[int], list[int]]:
    """Steps and levels of a curriculum, two corners for each rise, from the first step to the last."""
    corners = [(0, metric.start or 0)]
    for record in records:
        for level, step in record["raised"][metric.name]:
            corners += [(step, corners[-1][1]), (step, level)]
    steps, levels = zip(*corners, (records[-1]["step"], corners[-1][1]), strict=True)
    return list(steps), list(levels)
