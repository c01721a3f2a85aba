"""The picture of a forecast: its last intervals, and its error beside that of persistence."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

from foretrace.forecast import Predictions
from foretrace.plotting._charts import Chart, Line, draw_chart
from foretrace.plotting._labels import Curve, label_curves
from foretrace.plotting._style import PALETTE, frame, new_figure, save, styles_of

_SHOWN = 200  # forecasts


def plot_forecast(rows: Predictions, target: str, path: Path) -> None:
    """Draws the last forecasts beside what came, and the errors so far beside those of persistence.

    Args:
        rows: those of a run, as `foretrace.forecast.read_predictions` gives them.
        target: what is forecast.
        path: PNG file to write.
    """
    figure = new_figure(6.4, 5.8)
    above, below = figure.subplots(2, 1)
    panels = [(above, _draw_last(above, rows, target))]
    lines = [line for h in rows.horizons for line in _error_lines(rows, h)]
    if lines:
        chart = Chart("mean absolute error so far", "rows", lines, ("x",))
        styles = styles_of(line.label for line in lines if not line.theory)
        panels.append((below, draw_chart(below, chart, styles)))
    else:
        below.set_visible(False)
    label_curves(figure, panels)
    save(figure, path)


def _draw_last(axes: Axes, rows: Predictions, target: str) -> list[Curve]:
    """The last forecasts at the farthest horizon with what came, and those of rows to come."""
    horizon = rows.horizons[-1]
    last = slice(-_SHOWN, None)
    when, ahead_when = _axis(rows.when[last], rows), _axis(rows.ahead_when, rows)
    forecast, lower, upper = (column[last] for column in rows.of[horizon])
    actual = rows.actual[last]
    curves = []
    for x, low, high in ((when, lower, upper), (ahead_when, rows.ahead.lower, rows.ahead.upper)):
        axes.fill_between(x, low, high, color=PALETTE[0], alpha=0.18, linewidth=0)
    line: dict[str, Any] = {"linewidth": 1.6}
    dashed: dict[str, Any] = line | {"linestyle": (0, (3, 1))}
    dots: dict[str, Any] = {"linestyle": "", "marker": ".", "markersize": 3}
    axes.plot(ahead_when, rows.ahead.forecast, color=PALETTE[0], **dashed)
    for label, values, color, style in (
        (f"forecast, {horizon} ahead", forecast, PALETTE[0], line),
        ("observed", actual, PALETTE[-1], dots),
    ):
        known = np.isfinite(values)
        axes.plot(when, values, color=color, **style)
        if known.any():
            curves.append(Curve(label, color, axes.convert_xunits(when[known]), values[known]))
    # A single wild interval of the first rows must not flatten everything else.
    low, high = np.nanpercentile(np.r_[forecast, actual, rows.ahead.forecast], [0, 100])
    margin = 0.4 * max(high - low, 1e-9)
    axes.set_ylim(low - margin, high + margin)
    axes.margins(x=0)
    if rows.dated:
        locator = AutoDateLocator(minticks=3, maxticks=7)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.xaxis.get_offset_text().set_fontsize(8)
    frame(axes, f"{target}: the last {len(when):,} forecasts, with intervals", "" if rows.dated else "time")
    return curves


def _axis(when: np.ndarray, rows: Predictions) -> np.ndarray:
    """Times as matplotlib takes them."""
    return (1e6 * when).round().astype("datetime64[us]") if rows.dated else when


def _error_lines(rows: Predictions, horizon: int) -> list[Line]:
    """Mean errors up to every row, of the forecasts at one horizon and of persistence; none if unknown."""
    actual = rows.actual
    errors, persistence = abs(rows.of[horizon].forecast - actual), np.full(len(actual), np.nan)
    # The forecast for value t was made when value t - horizon was the last.
    persistence[horizon:] = abs(actual[horizon:] - actual[:-horizon])
    known = np.isfinite(errors) & np.isfinite(persistence)
    places, count = 1 + np.flatnonzero(known), np.arange(1, known.sum() + 1)
    return [
        Line(f"{name}, {horizon} ahead", places.tolist(), [np.cumsum(error[known]) / count], theory)
        for name, error, theory in (("foretrace", errors, False), ("persistence", persistence, True))
        if len(count)
    ]
