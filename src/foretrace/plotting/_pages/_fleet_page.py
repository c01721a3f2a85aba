"""The page of a forecast of many series: how well each is forecast, and which best and worst."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from foretrace._checks import UserError
from foretrace.forecast import Member, Predictions, read_fleet, score_of
from foretrace.plotting._pages._axis import Axis
from foretrace.plotting._pages._layout import band, layout, line, numbers, text
from foretrace.plotting._pages._page import Entry, Figure, Page, Table
from foretrace.plotting._style import PALETTE
from foretrace.runs import checkpoint
from foretrace.runs._config import read_config

_ROWS = 200_000  # that a page draws, of all series together: some ten megabytes
_FEWEST, _MOST = 20, 500  # of one series


def fleet_page(run: Path) -> Page:
    """The page of a run of `foretrace forecast --series`, as of its last checkpoint.

    Args:
        run: its folder.

    Returns:
        The page: a table of the series, with errors beside persistence and coverage; a click on a row shows
        the newest forecasts of its series.

    Raises:
        UserError: it is no such folder, or nothing is saved in it yet.
    """
    config = read_config(run) or {}
    record = (checkpoint.newest_info(run / "checkpoints") or {}).get("record", {})
    if not config.get("series") or not record.get("series"):
        raise UserError(
            f"run must be a folder of foretrace forecast --series with a checkpoint; got {str(run)!r}; "
            "wait for one, or give another folder."
        )
    scores = [score_of(Member.of(each, config["gaps"])) for each in record["series"]]
    scores.sort(key=lambda each: (math.isnan(each.ratio), -each.ratio))
    known = [each for each in scores if not math.isnan(each.ratio)]
    better = sum(each.ratio < 1 for each in known)
    drawn = min(max(_ROWS // len(scores), _FEWEST), _MOST)
    series = read_fleet(run / "predictions.csv", drawn)
    keys = {name: str(number) for number, name in enumerate(series)}
    rows = sum(each.rows for each in scores)
    lead = [f"{len(scores):,} series, {rows:,} rows, each forecast before it came."]
    if known:
        lead.append(f"{better:,} of {len(known):,} series are forecast better than by persistence.")
    return Page(
        title=f"{config['target']} of each {config['series']}, {config['horizon']} rows ahead",
        lead=lead,
        above=[
            Table(
                "Series",
                "Mean absolute errors at the farthest horizon; below 1, the error is less than that of the "
                "last value again. A click on a heading sorts, one on a row shows its series below.",
                [config["series"], "rows", "error", "beside persistence", "inside the interval"],
                [
                    [
                        each.series,
                        Entry(f"{each.rows:,}", each.rows),
                        _entry(each.error, "{:.4g}"),
                        _entry(each.ratio, "{:.3f}"),
                        _entry(each.coverage, "{:.1%}"),
                    ]
                    for each in scores
                ],
                opens=[keys.get(each.series) for each in scores],
            ),
            *_figures(series, keys, next((e.series for e in scores if e.series in keys), None), config),
            *(
                [Table("Irregularities", "", (), [[words] for words in record["irregularities"]])]
                if record["irregularities"]
                else []
            ),
        ],
        columns={
            f"{keys[name]} {label}": column
            for name, of_one in series.items()
            for label, column in _columns(of_one, drawn).items()
        },
    )


def _figures(
    series: dict[str, Predictions], keys: dict[str, str], first: str | None, config: dict[str, Any]
) -> list[Figure]:
    """The figure of one series, at first that of the first row of the table; none without forecasts."""
    if first is None:
        return []
    marked = {"meta": "seen"}
    traces = [
        *band(f"{config['coverage']:.0%} interval", "* when", "* lower", "* upper", PALETTE[0]),
        line("forecast", "* when", "* forecast", PALETTE[0], **marked),
        line("observed", "* when", "* actual", PALETTE[-1], **marked),
    ]
    look = layout(
        Axis(series[first]).words(),
        {"title": {"text": text(str(config["target"])), "standoff": 6}, "hoverformat": ",.12~g"},
    )
    note = (
        f"The newest rows of one series, forecast {config['horizon']} rows ahead, and the rows to come. "
        "Drag over a time to zoom, double-click to go back."
    )
    return [Figure(first, note, traces, look, 400, fits=True, opened=keys[first])]


def _columns(of_one: Predictions, rows: int) -> dict[str, list[Any]]:
    """What the figure of one series shows: its newest rows, then those to come."""
    axis, bounds = Axis(of_one), of_one.of[of_one.horizons[-1]]
    when = np.r_[of_one.when[-rows:], of_one.ahead_when]
    actual = np.r_[of_one.actual[-rows:], np.full(len(of_one.ahead_when), np.nan)]
    columns = {"when": axis.of(when), "actual": numbers(actual)}
    for label, came, to_come in zip(bounds._fields, bounds, of_one.ahead, strict=True):
        columns[label] = numbers(np.r_[came[-rows:], to_come])
    return columns


def _entry(value: float, form: str) -> Entry:
    return Entry("", math.inf) if math.isnan(value) else Entry(form.format(value), value)
