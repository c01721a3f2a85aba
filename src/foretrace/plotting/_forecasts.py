"""The picture of a forecast: its last intervals, and its error beside that of persistence."""

import csv
import itertools
from pathlib import Path

import numpy as np

from foretrace.plotting._charts import Chart, Line, draw_chart
from foretrace.plotting._labels import Curve, label_curves
from foretrace.plotting._style import PALETTE, frame, new_figure, save, styles_of

_SHOWN = 200  # forecasts


def plot_forecast(predictions: Path, target: str, path: Path) -> None:
    """Draws the last forecasts beside what came, and the errors so far beside those of persistence.

    Args:
        predictions: the file that `foretrace forecast` writes.
        target: what is forecast.
        path: PNG file to write.
    """
    # Columns: horizon, forecast, low, high, value.
    with predictions.open(newline="") as file:
        lines = itertools.islice(csv.reader(file), 1, None)
        rows = np.array([[float(cell or "nan") for cell in line[1:6]] for line in lines]).reshape(-1, 5)
    horizons = sorted({1, int(rows[:, 0].max(initial=1))})
    figure = new_figure(6.4, 5.8)
    above, below = figure.subplots(2, 1)
    last = rows[rows[:, 0] == horizons[-1]][-_SHOWN:]
    steps = np.arange(len(last)) - np.isfinite(last[:, 4]).sum() + 1
    if len(last) and not np.isfinite(last[-1, 4]):
        steps[-1] = horizons[-1]  # the newest forecast: those between it and the last row are not kept
    curves = []
    above.fill_between(steps, last[:, 2], last[:, 3], color=PALETTE[0], alpha=0.18, linewidth=0)
    for label, column, color, style in (
        (f"forecast, {horizons[-1]} ahead", 1, PALETTE[0], {"linewidth": 1.6}),
        ("observed", 4, PALETTE[-1], {"linestyle": "", "marker": ".", "markersize": 3}),
    ):
        known = np.isfinite(last[:, column])
        above.plot(steps, last[:, column], color=color, **style)
        if known.any():
            curves.append(Curve(label, color, steps[known], last[known, column]))
    # A single wild interval of the first rows must not flatten everything else.
    low, high = np.nanpercentile(np.r_[last[:, 1], last[:, 4]], [0, 100])
    margin = 0.4 * max(high - low, 1e-9)
    above.set_ylim(low - margin, high + margin)
    above.margins(x=0)
    frame(above, f"{target}: the last {len(last)} forecasts, with intervals", "rows before the end")
    lines = [line for h in horizons for line in _error_lines(rows, h)]
    panels = [(above, curves)]
    if lines:
        chart = Chart("mean absolute error so far", "rows", lines, ("x",))
        styles = styles_of(line.label for line in lines if not line.theory)
        panels.append((below, draw_chart(below, chart, styles)))
    else:
        below.set_visible(False)
    label_curves(figure, panels)
    save(figure, path)


def _error_lines(rows: np.ndarray, horizon: int) -> list[Line]:
    """Mean errors up to every row, of the forecasts at one horizon and of persistence; none if unknown."""
    own = rows[rows[:, 0] == horizon]
    values = rows[rows[:, 0] == 1][:, 4]
    values = values[len(values) - len(own) :] if len(values) >= len(own) else values
    errors, persistence = abs(own[:, 1] - own[:, 4]), np.full(len(own), np.nan)
    # The forecast for value t was made when value t - horizon was the last.
    if len(values) > horizon:
        persistence[horizon:] = abs(values[horizon:] - values[:-horizon])
    known = np.isfinite(errors) & np.isfinite(persistence)
    places, count = 1 + np.flatnonzero(known), np.arange(1, known.sum() + 1)
    return [
        Line(f"{name}, {horizon} ahead", places.tolist(), [np.cumsum(error[known]) / count], theory)
        for name, error, theory in (("foretrace", errors, False), ("persistence", persistence, True))
        if len(count)
    ]
