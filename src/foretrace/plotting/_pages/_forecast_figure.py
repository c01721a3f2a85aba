"""The figure of a forecast: what it said, with intervals, beside what came."""

from typing import Any

import numpy as np

from foretrace.forecast import Predictions
from foretrace.plotting._pages._axis import Axis
from foretrace.plotting._pages._layout import band, layout, line, numbers, text
from foretrace.plotting._pages._page import Figure
from foretrace.plotting._style import PALETTE

_FORECAST, _ANOMALY, _OBSERVED = PALETTE[0], PALETTE[1], PALETTE[-1]


def forecast_figure(
    rows: Predictions, horizon: int, axis: Axis, config: dict[str, Any], anomalies: np.ndarray, shown: int
) -> Figure:
    """The forecasts at one horizon with their intervals, what came, and the forecasts of rows to come.

    Args:
        rows: those of the run.
        horizon: which forecasts.
        axis: of time.
        config: that of the run.
        anomalies: (n,) bool, which values are marked.
        shown: how many rows the columns of the page have.
    """
    interval = f"{config['coverage']:.0%} interval"
    marked = {"meta": "seen"}
    traces = [
        *band(interval, "when", f"lower {horizon}", f"upper {horizon}", _FORECAST),
        line("forecast", "when", f"forecast {horizon}", _FORECAST, **marked),
        line("observed", "when", "actual", _OBSERVED, **marked),
    ]
    traces[-1]["line"] = {"color": _OBSERVED, "width": 1.2}
    if anomalies.any():
        marks = {"color": _ANOMALY, "size": 11, "symbol": "circle-open", "line": {"width": 2}}
        when, actual = axis.of(rows.when[anomalies]), numbers(rows.actual[anomalies])
        traces.append(
            line(
                "anomaly", when, actual, _ANOMALY, mode="markers", marker=marks, hoverinfo="skip", **marked
            )
        )
    if rows.ahead_times:
        when = axis.of(rows.ahead_when)
        ahead = [numbers(column) for column in rows.ahead]
        few = {"mode": "lines+markers"} if len(when) == 1 else {}
        traces += band("interval to come", when, ahead[1], ahead[2], _FORECAST)
        traces += [line("forecast to come", when, ahead[0], _FORECAST, dash="4px,2px", **few, **marked)]
        traces[-2]["showlegend"] = False
    newest = _newest(np.r_[rows.when, rows.ahead_when], len(rows.ahead_when), axis)
    note = "Drag over a time or use the buttons to zoom, double-click to go back; a tap shows the numbers."
    if shown < len(rows.times):
        note += (
            f" Of {len(rows.times):,} rows {shown:,} are drawn: all of the newest, and of those before the "
            "extremes and every anomaly."
        )
    look = layout(
        axis.words(range=list(newest[0][1:])),
        {"title": {"text": text(str(config["target"])), "standoff": 6}, "hoverformat": ",.12~g"},
    )
    return Figure("Forecast and what came", note, traces, look, 400, newest, follows=True, fits=True)


def _newest(when: np.ndarray, ahead: int, axis: Axis) -> list[tuple[str, Any, Any]]:
    """The ranges of time that have the newest rows."""
    times, came = axis.of(when), len(when) - ahead
    ranges = [(f"{count:,}", times[came - count], times[-1]) for count in (200, 1000, 5000) if count < came]
    return [*ranges, ("all", times[0], times[-1])]
