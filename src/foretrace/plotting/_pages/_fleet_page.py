"""The page of a forecast of many series: how well each is forecast, and which best and worst."""

import math
from pathlib import Path

from foretrace._checks import UserError
from foretrace.forecast import Member, score_of
from foretrace.plotting._pages._page import Entry, Page, Table
from foretrace.runs import checkpoint
from foretrace.runs._folder import read_config


def fleet_page(run: Path) -> Page:
    """The page of a run of `foretrace forecast --series`, as of its last checkpoint.

    Args:
        run: its folder.

    Returns:
        The page: a table of the series, with errors beside persistence and coverage.

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
                "last value again. A click on a heading sorts.",
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
            ),
            *(
                [Table("Irregularities", "", (), [[words] for words in record["irregularities"]])]
                if record["irregularities"]
                else []
            ),
        ],
    )


def _entry(value: float, form: str) -> Entry:
    return Entry("", math.inf) if math.isnan(value) else Entry(form.format(value), value)
