"""The page of a forecast: what it said beside what came, errors beside those of simple rules, anomalies."""

from pathlib import Path
from typing import Any

import numpy as np

from foretrace._checks import UserError
from foretrace.forecast import Predictions, ScoreKeeper, read_predictions
from foretrace.plotting._pages import _scores
from foretrace.plotting._pages._anomalies import anomaly_table, are_anomalies
from foretrace.plotting._pages._axis import Axis
from foretrace.plotting._pages._forecast_figure import forecast_figure
from foretrace.plotting._pages._layout import layout, line, numbers
from foretrace.plotting._pages._page import Figure, Page, Table, View
from foretrace.plotting._pages._thin import thinned
from foretrace.plotting._style import styles_of
from foretrace.runs import checkpoint
from foretrace.runs._config import read_config


def forecast_page(run: Path, rows: Predictions | None = None) -> Page:
    """The page of a run of `foretrace forecast`, which may still go on.

    Args:
        run: its folder.
        rows: those of its predictions.csv, which is read unless they are given.

    Returns:
        The page: forecasts with intervals and what came, errors and coverage over time beside the simple
        rules, anomalies, and the weights of the experts.

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
    named = config.get("period")
    period = keeper.period if keeper else named if isinstance(named, int) else 0
    axis = Axis(rows)
    anomalies = are_anomalies(rows)
    blocks = _scores.Blocks(len(rows.times), period)
    shown = thinned([rows.actual, *(rows.of[h].forecast for h in rows.horizons)], anomalies)
    columns = {"when": axis.of(rows.when[shown]), "actual": numbers(rows.actual[shown])}
    views = []
    for h in reversed(rows.horizons):
        for name, values in zip(("forecast", "lower", "upper"), rows.of[h], strict=True):
            columns[f"{name} {h}"] = numbers(values[shown])
        parts = [forecast_figure(rows, h, axis, config, anomalies, len(shown))]
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
            anomaly_table(rows, anomalies, axis),
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
        interval = f"{config['coverage']:.0%} interval {low:.12g} to {high:.12g}"
        if not np.isfinite(low):
            interval = "no interval yet"
        lead.append(f"Forecast for {rows.ahead_times[0]}: {value:.12g}, {interval}.")
    return lead


def _rows_ahead(horizon: int) -> str:
    return f"{horizon} row{'' if horizon == 1 else 's'} ahead"


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
