"""Errors and coverage of a forecast beside those of simple rules: in a table, and over time."""

import math

import numpy as np

from foretrace.forecast import Predictions, RuleScore, ScoreKeeper
from foretrace.plotting._pages._axis import Axis
from foretrace.plotting._pages._layout import layout, line, numbers
from foretrace.plotting._pages._page import Cell, Figure, Table
from foretrace.plotting._style import GREY, PALETTE

_BLOCKS = 100  # points of a line
_LEAST = 20  # rows that a mean is of
_FEW = 9  # points; so many are marked
_PERSISTENCE, _SEASONAL = "persistence", "seasonal naive"


class Blocks:
    """Rows in about a hundred blocks of equal length, of whole seasons where there is one."""

    def __init__(self, rows: int, period: int):
        unit = period if 1 < period <= rows / _LEAST else 10
        self.size = unit * math.ceil(max(_LEAST, rows / _BLOCKS) / unit)
        self.starts = np.arange(0, max(rows, 1), self.size)

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
    heading = ["rows ahead", "mean absolute error", *rules, f"inside the {coverage:.0%} interval"]
    rows = []
    for score in scores:
        ours = next(iter(score.rules.values())).ours
        cells = [Cell(f"{score.horizon}", score.horizon), Cell(f"{ours:.4g}", ours)]
        cells += [_beside(score.rules[rule]) if rule in score.rules else Cell("", math.inf) for rule in rules]
        share = Cell("no interval yet", -1.0) if math.isnan(score.coverage) else None
        rows.append([*cells, share or Cell(f"{score.coverage:.1%}", score.coverage)])
    season = f" and the last one of the same place in a season of {keeper.period} rows (seasonal naive)"
    note = (
        "Every value was forecast before it was learned. The rules beside: the last value again (persistence)"
        f"{season if keeper.period else ''}."
    )
    return Table("Errors", note, heading, rows)


def _beside(score: RuleScore) -> Cell:
    """A rule's error, and how much better or worse ours is over the same values."""
    change = score.ours / max(score.error, 1e-30) - 1
    return Cell(f"{score.error:.4g} (ours {abs(change):.0%} {'above' if change > 0 else 'below'})", score.error)


def figures(
    rows: Predictions, horizon: int, period: int, blocks: Blocks, axis: Axis, coverage: float
) -> list[Figure]:
    """Errors over time beside those of the rules, and coverage over time, at one horizon."""
    forecast, lower, upper = rows.of[horizon]
    errors = {"foretrace": abs(forecast - rows.actual)} | _rules(rows, horizon, period)
    inside = np.where(np.isfinite(lower), (lower <= rows.actual) & (rows.actual <= upper), np.nan)
    inside = np.where(np.isfinite(rows.actual), inside, np.nan)
    # A mean stands where its block ends.
    ends = np.append(blocks.starts[1:], len(rows.when)) - 1
    when = axis.of(rows.when[ends])
    mode = {"mode": "lines+markers"} if len(when) < _FEW else {}
    colors = {"foretrace": (PALETTE[0], "solid"), _PERSISTENCE: (GREY, "dash"), _SEASONAL: (PALETTE[2], "dot")}
    lines = [
        line(name, when, numbers(blocks.mean(error)), color, dash=dash, **mode)
        for name, error in errors.items()
        for color, dash in [colors[name]]
        if np.isfinite(error).any()
    ]
    shares = line("share inside", when, numbers(blocks.mean(inside)), PALETTE[0], **mode)
    goal = line(f"wanted: {coverage:.0%}", [when[0], when[-1]], [coverage] * 2, GREY, dash="dash")
    each = f"Each point is a mean over {blocks.size:,} rows."
    y = {"hoverformat": ",.4~g", "rangemode": "tozero"}
    share = {"tickformat": ".0%", "hoverformat": ".1%", "range": [_floor(blocks.mean(inside), coverage), 1.005]}
    return [
        Figure("Mean absolute error over time", each, lines, layout(axis.words(), y), follows=True),
        Figure(
            "How often the value was inside the interval", each, [shares, goal],
            layout(axis.words(), share), height=220, follows=True,
        ),
    ]  # fmt: skip


def _floor(shares: np.ndarray, coverage: float) -> float:
    """The least share that is shown, a multiple of a tenth."""
    least = min([coverage, *shares[np.isfinite(shares)]])
    return max(0.0, math.floor(10 * least - 0.5) / 10)


def _rules(rows: Predictions, horizon: int, period: int) -> dict[str, np.ndarray]:
    """The errors of the simple rules; an unknown value is what was forecast for it one row ahead."""
    values = np.where(np.isfinite(rows.actual), rows.actual, rows.of[1].forecast)
    lags = {_PERSISTENCE: horizon} | ({_SEASONAL: period * ((horizon - 1) // period + 1)} if period else {})
    errors = {}
    for name, lag in lags.items():
        errors[name] = np.full(len(values), np.nan)
        errors[name][lag:] = abs(rows.actual[lag:] - values[: len(values) - lag])
    return errors
