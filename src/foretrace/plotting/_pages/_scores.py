"""Errors and coverage of a forecast beside those of simple rules: in a table, and over time."""

import math
from typing import Any

import numpy as np

from foretrace.forecast import Predictions, RuleScore, ScoreKeeper
from foretrace.plotting._pages._axis import Axis
from foretrace.plotting._pages._layout import layout, line, numbers
from foretrace.plotting._pages._page import Entry, Figure, Table
from foretrace.plotting._style import GREY, PALETTE

_BLOCKS = 60  # points of a line, about
_LEAST = 50  # rows that a mean is of: of fewer, coverage is mostly chance
_FEW = 9  # points; so many are marked
_PERSISTENCE, _SEASONAL = "persistence", "seasonal naive"


class Blocks:
    """Rows in about sixty blocks of equal length, of whole seasons where there is one.

    Attributes:
        size: rows of a block.
        starts: where the blocks begin.
        note: the same in words.
    """

    def __init__(self, rows: int, period: int):
        unit = period if 1 < period <= rows / 20 else 10
        self.size = unit * math.ceil(max(_LEAST, rows / _BLOCKS) / unit)
        # The last block has up to one and a half times as many: a mean over few rows would jump.
        self.starts = np.arange(0, max(rows - self.size // 2, 1), self.size)
        self.note = f"Each point is a mean over {self.size:,} rows."

    def mean(self, values: np.ndarray) -> np.ndarray:
        """The mean of the known values of each block, NaN where there is none."""
        known = np.isfinite(values)
        counts = np.add.reduceat(known.astype(float), self.starts)
        sums = np.add.reduceat(np.where(known, values, 0.0), self.starts)
        return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)


def table(keeper: ScoreKeeper, coverage: float) -> Table:
    """The mean errors at the nearest and the farthest horizon beside those of the rules."""
    scores = [score for score in keeper.scores() if score.horizon in (1, keeper.horizon)]
    rules = list(dict.fromkeys(rule for score in scores for rule in score.rules))
    rows = []
    for score in scores:
        ours = next(iter(score.rules.values())).ours
        beside = [_beside(score.rules[rule]) if rule in score.rules else "" for rule in rules]
        share = "no interval yet" if math.isnan(score.coverage) else _share(score.coverage)
        rows.append([Entry(f"{score.horizon}", score.horizon), Entry(f"{ours:.4g}", ours), *beside, share])
    season = f" and the last one of the same place in a season of {keeper.period} rows (seasonal naive)"
    note = (
        "Every value was forecast before it was learned. The rules beside: the last value again "
        f"(persistence){season if keeper.period else ''}."
    )
    heading = ["rows ahead", "mean absolute error", *rules, f"inside the {coverage:.0%} interval"]
    return Table("Errors", note, heading, rows)


def _share(value: float) -> Entry:
    return Entry(f"{value:.1%}", value)


def _beside(score: RuleScore) -> Entry:
    """A rule's error, and how much better or worse ours is over the same values."""
    change = score.ours / max(score.error, 1e-30) - 1
    side = "above" if change > 0 else "below"
    return Entry(f"{score.error:.4g} (ours {abs(change):.0%} {side})", score.error)


def errors_over_time(rows: Predictions, horizon: int, period: int, blocks: Blocks, axis: Axis) -> Figure:
    """Mean errors of the forecasts at one horizon, beside those of the rules."""
    looks = {_PERSISTENCE: (GREY, "dash"), _SEASONAL: (PALETTE[2], "dot")}
    errors = {"foretrace": abs(rows.of[horizon].forecast - rows.actual)} | _rules(rows, horizon, period)
    lines = []
    for name, error in errors.items():
        color, dash = looks.get(name, (PALETTE[0], "solid"))
        if np.isfinite(error).any():
            lines.append(_over_time(name, blocks.mean(error), rows, blocks, axis, color, dash))
    look = layout(axis.words(), {"hoverformat": ",.4~g", "rangemode": "tozero"})
    return Figure("Mean absolute error over time", blocks.note, lines, look, follows=True)


def coverage_over_time(
    rows: Predictions, horizon: int, wanted: float, blocks: Blocks, axis: Axis
) -> Figure:
    """How often values were inside the interval at one horizon."""
    _, lower, upper = rows.of[horizon]
    known = np.isfinite(lower) & np.isfinite(rows.actual)
    shares = blocks.mean(np.where(known, (lower <= rows.actual) & (rows.actual <= upper), np.nan))
    floor = math.floor(10 * min([wanted, *shares[np.isfinite(shares)]]) - 0.5) / 10
    goal = np.full_like(shares, wanted)
    lines = [
        _over_time("share inside", shares, rows, blocks, axis, PALETTE[0], "solid"),
        _over_time(f"wanted: {wanted:.0%}", goal, rows, blocks, axis, GREY, "dash"),
    ]
    y = {"tickformat": ".0%", "hoverformat": ".1%", "range": [max(0.0, floor), 1.005]}
    title, look = "How often the value was inside the interval", layout(axis.words(), y)
    return Figure(title, blocks.note, lines, look, height=220, follows=True)


def _over_time(
    name: str, means: np.ndarray, rows: Predictions, blocks: Blocks, axis: Axis, color: str, dash: str
) -> dict[str, Any]:
    """A line whose points stand where their blocks end."""
    ends = np.append(blocks.starts[1:], len(rows.when)) - 1
    mode = {"mode": "lines+markers"} if len(ends) < _FEW else {}
    return line(name, axis.of(rows.when[ends]), numbers(means), color, dash=dash, **mode)


def _rules(rows: Predictions, horizon: int, period: int) -> dict[str, np.ndarray]:
    """The errors of the simple rules; an unknown value is what was forecast for it one row ahead."""
    values = np.where(np.isfinite(rows.actual), rows.actual, rows.of[1].forecast)
    lags = {_PERSISTENCE: horizon} | ({_SEASONAL: period * ((horizon - 1) // period + 1)} if period else {})
    errors = {}
    for name, lag in lags.items():
        errors[name] = np.full(len(values), np.nan)
        errors[name][lag:] = abs(rows.actual[lag:] - values[: max(0, len(values) - lag)])
    return errors
