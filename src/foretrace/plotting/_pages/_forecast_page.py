"""The page of a forecast: what it said beside what came, errors beside those of simple rules, anomalies."""

from pathlib import Path
from typing import Any

import numpy as np

from foretrace._checks import UserError
from foretrace.forecast import Predictions, ScoreKeeper, read_predictions
from foretrace.plotting._pages import _scores
from foretrace.plotting._pages._axis import Axis
from foretrace.plotting._pages._layout import band, layout, line, numbers, text
from foretrace.plotting._pages._page import Entry, Figure, Page, Table, View
from foretrace.plotting._pages._thin import thinned
from foretrace.plotting._style import PALETTE, styles_of
from foretrace.runs import checkpoint
from foretrace.runs._folder import read_config

_SURPRISES = 200  # that are listed
_FORECAST, _SURPRISE, _OBSERVED = PALETTE[0], PALETTE[1], PALETTE[-1]


def forecast_page(run: Path, rows: Predictions | None = None) -> Page:
    """The page of a run of `foretrace forecast`, which may still go on.

    Args:
        run: its folder.
        rows: those of its predictions.csv, which is read unless they are given.

    Returns:
        The page: forecasts with intervals and what came, errors and coverage over time beside the simple
        rules, values that surprised, and the weights of the experts.

    Raises:
        UserError: it is no such folder, or there is no forecast in it yet.
    """
    config = read_config(run)
    if not config or config.get("kind") != "forecast":
        raise UserError(
            f"run must be a folder of foretrace forecast; got {str(run)!r}; see foretrace forecast --help."
        )
    record = (checkpoint.newest_info(run / "checkpoints") or {}).get("record", {})
    rows = rows or read_predictions(run / "predictions.csv", record.get("ahead", ()))
    keeper = ScoreKeeper(**record["scores"]) if "scores" in record else None
    period = keeper.period if keeper else int(config.get("period") or 0)
    axis = Axis(rows)
    surprising = _surprising(rows)
    blocks = _scores.Blocks(len(rows.times), period)
    shown = thinned([rows.actual, *(rows.of[h].forecast for h in rows.horizons)], surprising)
    columns = {"when": axis.of(rows.when[shown]), "actual": numbers(rows.actual[shown])}
    views = []
    for h in reversed(rows.horizons):
        for name, values in zip(("forecast", "lower", "upper"), rows.of[h], strict=True):
            columns[f"{name} {h}"] = numbers(values[shown])
        parts = [_forecasts(rows, h, axis, config, surprising, len(shown))]
        if rows.times:
            parts.append(_scores.errors_over_time(rows, h, period, blocks, axis))
            parts.append(_scores.coverage_over_time(rows, h, config["coverage"], blocks, axis))
        views.append(View(_rows_ahead(h), parts))
    return Page(
        title=f"{config['target']}, {_rows_ahead(rows.horizons[-1])}",
        lead=_lead(rows, config),
        above=[_scores.table(keeper, config["coverage"])] if keeper and keeper.scores() else [],
        views=views,
        below=[
            _surprises(rows, surprising, axis),
            *_experts(record.get("weights"), rows, axis),
            *_notes(record),
        ],
        columns=columns,
    )


def _lead(rows: Predictions, config: dict[str, Any]) -> list[str]:
    """How many rows of what, and the next forecast."""
    older = "the newest " if rows.partial else ""
    last = rows.times[-1] if rows.times else ""
    model = f"{config['cell']}, {config['hidden']} units"
    lead = [f"{older}{len(rows.times):,} rows, each forecast before it came, to {last}; {model}."]
    if rows.ahead_times:
        value, low, high = (float(column[0]) for column in rows.ahead)
        interval = (
            f"{config['coverage']:.0%} interval {low:.12g} to {high:.12g}"
            if low == low
            else "no interval yet"
        )
        lead.append(f"Forecast for {rows.ahead_times[0]}: {value:.12g}, {interval}.")
    return lead


def _rows_ahead(horizon: int) -> str:
    return f"{horizon} row{'' if horizon == 1 else 's'} ahead"


def _forecasts(
    rows: Predictions, horizon: int, axis: Axis, config: dict[str, Any], surprising: np.ndarray, shown: int
) -> Figure:
    """Forecasts with their intervals, what came, and the forecasts of rows to come."""
    interval = f"{config['coverage']:.0%} interval"
    seen = {"meta": "seen"}
    traces = [
        *band(interval, "when", f"lower {horizon}", f"upper {horizon}", _FORECAST),
        line("forecast", "when", f"forecast {horizon}", _FORECAST, **seen),
        line("observed", "when", "actual", _OBSERVED, **seen),
    ]
    traces[-1]["line"] = {"color": _OBSERVED, "width": 1.2}
    if surprising.any():
        marks = {"color": _SURPRISE, "size": 11, "symbol": "circle-open", "line": {"width": 2}}
        when, actual = axis.of(rows.when[surprising]), numbers(rows.actual[surprising])
        traces.append(
            line("anomaly", when, actual, _SURPRISE, mode="markers", marker=marks, hoverinfo="skip", **seen)
        )
    if rows.ahead_times:
        when = axis.of(rows.ahead_when)
        ahead = [numbers(column) for column in rows.ahead]
        few = {"mode": "lines+markers"} if len(when) == 1 else {}
        traces += band("interval to come", when, ahead[1], ahead[2], _FORECAST)
        traces += [line("forecast to come", when, ahead[0], _FORECAST, dash="4px,2px", **few, **seen)]
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


def _surprising(rows: Predictions) -> np.ndarray:
    """Which values are anomalies, (n,): outside their interval, with an error that is rare."""
    _, lower, upper = rows.of[1]
    outside = (rows.actual < lower) | (rows.actual > upper)
    return outside & (rows.anomaly >= _rare(rows))


def _rare(rows: Predictions) -> float:
    # A score is a share of at most 1,000 errors before: among few rows none is that high.
    return 0.999 if len(rows.times) > 2000 else 0.99


def _surprises(rows: Predictions, surprising: np.ndarray, axis: Axis) -> Table:
    """The anomalies, newest first."""
    forecast, lower, upper = rows.of[1]
    places = np.flatnonzero(surprising)[::-1]
    note = (
        f"Values outside their interval whose error one row ahead was larger than {_rare(rows):.1%} of the "
        "errors before it, of which 1,000 count"
    )
    listed = places[:_SURPRISES]
    if not len(places):
        note += ": none."
    elif len(listed) < len(places):
        note += f": {len(places):,}, of which the newest {_SURPRISES} are listed."
    else:
        note += f": {len(places):,}. A click on a row shows it in the figure above."
    cells = [
        [
            Entry(rows.times[i], float(rows.when[i])),
            *(Entry(f"{float(value[i]):.12g}", float(value[i])) for value in (rows.actual, forecast)),
            Entry(f"{lower[i]:.12g} to {upper[i]:.12g}", float(lower[i])),
            Entry(f"{rows.actual[i] - forecast[i]:+.4g}", float(abs(rows.actual[i] - forecast[i]))),
        ]
        for i in listed
    ]
    heading = ("time", "observed", "forecast", "interval", "error") if len(listed) else ()
    return Table("Anomalies", note, heading, cells, axis.of(rows.when[listed]))


def _experts(weights: dict[str, Any] | None, rows: Predictions, axis: Axis) -> list[Figure]:
    """The weights of the experts over time, where the run has noted them."""
    when_of = dict(zip(rows.times, axis.of(rows.when), strict=True))
    known = [i for i, time in enumerate(weights["times"]) if time in when_of] if weights else []
    if not weights or not known:
        return []
    when = [when_of[weights["times"][i]] for i in known]
    mode = {"mode": "lines+markers"} if len(when) == 1 else {}
    traces = [
        line(
            name, when, [weights["weights"][i][place] for i in known], style.color, stackgroup="all", **mode
        )
        | {"line": {"width": 0.5, "color": style.color}}
        for place, (name, style) in enumerate(styles_of(weights["names"]).items())
    ]
    look = layout(axis.words(), {"tickformat": ".0%", "hoverformat": ".1%", "range": [0, 1]})
    note = "The forecast one row ahead is a mixture of these; their weights follow from how well each did."
    return [Figure("What each expert counts for", note, traces, look, follows=True)]


def _notes(record: dict[str, Any]) -> list[Table]:
    """What was unusual about the data."""
    lines = record.get("irregularities")
    return [Table("Data", "", (), [[words] for words in lines])] if lines else []
