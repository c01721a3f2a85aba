"""Scores of a forecaster beside those of simple rules, and the lines of predictions.csv."""

import dataclasses
import decimal
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from foretrace.stream import ForecastResult

HEADING = "time,horizon,prediction,lower,upper,actual,anomaly\n"


class RuleScore(NamedTuple):
    """Mean absolute errors over the values for which a simple rule had a forecast.

    Attributes:
        rows: number of these values.
        error: of the rule.
        ours: of foretrace.
    """

    rows: int
    error: float
    ours: float


class Score(NamedTuple):
    """Errors at one horizon.

    Attributes:
        horizon: rows ahead.
        rules: by name, "persistence" first; those without any value are left out.
        coverage: share of the values inside their interval, NaN if there was none.
    """

    horizon: int
    rules: dict[str, RuleScore]
    coverage: float


@dataclasses.dataclass
class ScoreKeeper:
    """Compares forecasts with values as these come; every field is JSON, so that a run can go on.

    Attributes:
        horizon: H.
        period: rows in a season, 0 for none.
        rows: values so far.
        unknown: of them, those that were not known.
        counts: (H,), intervals compared with a value.
        inside: (H,), values inside their interval.
        errors: for each rule (H, 3): values for which it had a forecast, and over these the sums of its
            absolute errors and of ours.
        decimals: of the values, as many as the most precise one has.
        last: the last values, newest first, as many as the rules need.
        pending: forecasts made at the last H times, newest first: forecast, lower and upper, (3, H) each.
    """

    horizon: int
    period: int
    rows: int = 0
    unknown: int = 0
    counts: list = dataclasses.field(default_factory=list)
    inside: list = dataclasses.field(default_factory=list)
    errors: dict = dataclasses.field(default_factory=dict)
    decimals: int = 0
    last: list = dataclasses.field(default_factory=list)
    pending: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        if not self.counts:
            self.counts, self.inside = ([0] * self.horizon for _ in range(2))
            rules = ["persistence"] + ["seasonal naive"] * (self.period > 0)
            self.errors = {rule: [[0, 0.0, 0.0] for _ in range(self.horizon)] for rule in rules}

    def scores(self) -> list[Score]:
        """The score at every horizon at which some value was compared."""
        scores = []
        for h in range(self.horizon):
            sums = {rule: errors[h] for rule, errors in self.errors.items() if errors[h][0]}
            rules = {rule: RuleScore(n, theirs / n, ours / n) for rule, (n, theirs, ours) in sums.items()}
            coverage = self.inside[h] / self.counts[h] if self.counts[h] else math.nan
            if rules:
                scores.append(Score(h + 1, rules, coverage))
        return scores

    def add(self, time: str, y: float, result: ForecastResult) -> str:
        """Adds a value and the forecasts made after it; returns its lines of predictions.csv."""
        lines = []
        if not math.isnan(y):
            exponent = decimal.Decimal(repr(y)).normalize().as_tuple().exponent
            self.decimals = max(self.decimals, -int(exponent))
        for h, (forecast, lower, upper) in enumerate(self._forecasts_for_now()):
            anomaly = ""
            if not math.isnan(y):
                self.counts[h] += lower > -math.inf
                self.inside[h] += -math.inf < lower <= y <= upper
                self._compare(h, y, forecast)
                anomaly = f"{1 - float(result.tail):.4f}" if h == 0 else ""
            actual = "" if math.isnan(y) else f"{y:.15g}"
            lines.append(f"{self.line_of(time, h + 1, forecast, lower, upper)},{actual},{anomaly}\n")
        self.rows += 1
        self.unknown += math.isnan(y)
        # The forecast one row ahead stands in for an unknown value.
        value = y if not math.isnan(y) else (self.pending[0][0][0] if self.pending else math.nan)
        self.last = [value, *self.last][: max(self.horizon, self.period + self.horizon)]
        now = [result.forecast.tolist(), result.lower.tolist(), result.upper.tolist()]
        self.pending = [now, *self.pending][: self.horizon]
        return "".join(lines)

    def line_of(self, time: str, horizon: int, forecast: float, lower: float, upper: float) -> str:
        """The first cells of a line of predictions.csv; bounds that are unknown are empty."""
        bounds = f"{self.text(lower)},{self.text(upper)}" if lower > -math.inf else ","
        # A stamp may have a comma, as in Jan 31, 2026.
        stamp = f'"{time}"' if "," in time else time
        return f"{stamp},{horizon},{self.text(forecast)},{bounds}"

    def text(self, value: float) -> str:
        """A forecast with two decimals more than the values have, and at least 7 digits."""
        digits = len(f"{abs(value):.0f}") + self.decimals + 2
        return f"{value:.{min(max(7, digits), 15)}g}"

    def next_forecasts(self) -> list[tuple[int, float, float, float]]:
        """Horizon, forecast, lower and upper bound of each row to come."""
        newest = self.pending[0] if self.pending else [[], [], []]
        return [(h, *values) for h, values in enumerate(zip(*newest, strict=True), start=1)]

    def _forecasts_for_now(self) -> list[tuple[float, float, float]]:
        """Forecast, lower and upper bound of the value that comes now, nearest horizon first."""
        return [
            (forecast[h], lower[h], upper[h]) for h, (forecast, lower, upper) in enumerate(self.pending)
        ]

    def _compare(self, h: int, y: float, forecast: float) -> None:
        # The newest value of the same place in the season that was known then.
        places = {"persistence": h, "seasonal naive": self.period * (h // max(self.period, 1) + 1) - 1}
        for rule, errors in self.errors.items():
            theirs = self.last[places[rule]] if places[rule] < len(self.last) else math.nan
            if not (math.isnan(theirs) or math.isnan(forecast)):
                count, sum_of_theirs, sum_of_ours = errors[h]
                errors[h] = [count + 1, sum_of_theirs + abs(y - theirs), sum_of_ours + abs(y - forecast)]


def summary(keeper: ScoreKeeper) -> list[str]:
    """The scores at the nearest and the farthest horizon, in lines."""
    lines = []
    for horizon, rules, coverage in keeper.scores():
        if horizon not in (1, keeper.horizon):
            continue
        ours, most = next(iter(rules.values())).ours, max(score.rows for score in rules.values())
        words = [f"{horizon} ahead: mean absolute error {ours:.4g} over {most:,} values"]
        for rule, score in rules.items():
            words.append(f"{rule} {score.error:.4g}")
            if score.rows < most:
                words[-1] += f" over {score.rows:,} of them, where ours is {score.ours:.4g}"
        has_interval = not math.isnan(coverage)
        words.append(
            f"{coverage:.1%} of the values were inside the interval" if has_interval else "no interval yet"
        )
        lines.append("; ".join(words))
        ratios = {rule: score.ours / max(score.error, 1e-30) for rule, score in rules.items()}
        rule = max(ratios, key=ratios.__getitem__)
        if ratios[rule] > 1:
            lines.append(f"{horizon} ahead: does NOT beat {rule}, by {ratios[rule] - 1:.1%}: use {rule}")
        else:
            lines.append(f"{horizon} ahead: better than {rule} by {1 - ratios[rule]:.1%}")
    return lines


def season_of(times: Sequence[float]) -> int:
    """The usual season of dates by their spacing in seconds: a day, a week or a year; 0 for none."""
    steps = np.diff(np.asarray(times, float))
    if not len(steps):
        return 0
    step = float(np.median(steps))
    hour, day = 3600.0, 86400.0
    for longest, season in ((2 * hour, day), (2 * day, 7 * day), (40 * day, 365.25 * day)):
        if 0 < step < longest:
            rows = round(season / step)
            return rows if 2 <= rows <= 3000 else 0
    return 0
