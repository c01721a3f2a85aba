"""What a forecaster said, beside what came and what simple rules would have said."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from foretrace.stream._compiled import Outlook

HEADING = "time,horizon,prediction,lower,upper,actual,anomaly\n"


@dataclasses.dataclass
class Journal:
    """The errors so far, and what it takes to go on; everything in it is JSON.

    Attributes:
        horizon: H.
        period: samples in a season, 0 for none.
        rows: values that came.
        unknown: of them, those that were not known.
        counts: (H,), forecasts that were compared with a value.
        inside: (H,), values inside their interval.
        errors: (rules, H), sums of absolute errors: of the forecasts, of persistence, of the season.
        compared: (H,), values for which all rules had something to say.
        last: the last values, newest first, as many as the rules need.
        open: what was said at the last H times, newest first: forecast, lower and upper, (3, H) each.
    """

    horizon: int
    period: int
    rows: int = 0
    unknown: int = 0
    counts: list = dataclasses.field(default_factory=list)
    inside: list = dataclasses.field(default_factory=list)
    compared: list = dataclasses.field(default_factory=list)
    errors: list = dataclasses.field(default_factory=list)
    last: list = dataclasses.field(default_factory=list)
    open: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        if not self.counts:
            self.counts, self.inside, self.compared = ([0] * self.horizon for _ in range(3))
            self.errors = [[0.0] * self.horizon for _ in self.rules]

    @property
    def rules(self) -> list[str]:
        """Names of what is compared."""
        return ["foretrace", "persistence"] + ["seasonal naive"] * (self.period > 0)

    def means(self) -> dict[str, list[float]]:
        """Mean absolute error of every rule at each horizon, over the same values; NaN without any."""
        counts = [count or math.nan for count in self.compared]
        return {
            rule: [total / count for total, count in zip(sums, counts, strict=True)]
            for rule, sums in zip(self.rules, self.errors, strict=True)
        }

    def enter(self, time: str, y: float, said: Outlook) -> str:
        """Takes in a value and what was said after it; returns the lines of predictions that it closes."""
        lines = []
        for h, (forecast, lower, upper) in enumerate(self._due()):
            anomaly = ""
            if not math.isnan(y):
                self.counts[h] += 1
                self.inside[h] += lower <= y <= upper
                self._compare(h, y, forecast)
                anomaly = f"{1 - float(said.tail):.4f}" if h == 0 else ""
            actual = "" if math.isnan(y) else f"{y:.9g}"
            lines.append(f"{time},{h + 1},{forecast:.7g},{lower:.7g},{upper:.7g},{actual},{anomaly}\n")
        self.rows += 1
        self.unknown += math.isnan(y)
        # What stands in for an unknown value is what had been said of it.
        value = y if not math.isnan(y) else (self.open[0][0][0] if self.open else math.nan)
        self.last = [value, *self.last][: max(self.horizon, self.period + self.horizon)]
        now = [said.forecast.tolist(), said.lower.tolist(), said.upper.tolist()]
        self.open = [now, *self.open][: self.horizon]
        return "".join(lines)

    def ahead(self) -> list[tuple[int, float, float, float]]:
        """What was said last: horizon, forecast, lower and upper bound."""
        return (
            []
            if not self.open
            else [(h + 1, *values) for h, values in enumerate(zip(*self.open[0], strict=True))]
        )

    def _due(self) -> list[tuple[float, float, float]]:
        """What was said of this time, nearest horizon first."""
        return [tuple(part[h] for part in said) for h, said in enumerate(self.open)]

    def _compare(self, h: int, y: float, forecast: float) -> None:
        said = [forecast, self.last[h]]
        if self.period:
            # The newest value of the same place in the season that was known then.
            back = self.period * (h // self.period + 1) - 1
            if back >= len(self.last):
                return
            said.append(self.last[back])
        if any(math.isnan(value) for value in said):
            return
        self.compared[h] += 1
        for sums, value in zip(self.errors, said, strict=True):
            sums[h] += abs(y - value)


def summary(journal: Journal) -> list[str]:
    """How well the forecasts did beside the simple rules, in lines."""
    means = journal.means()
    shown = sorted({1, journal.horizon})
    lines = []
    for h in shown:
        if not journal.compared[h - 1]:
            continue
        ours, *others = (means[rule][h - 1] for rule in journal.rules)
        words = [f"{rule} {value:.4g}" for rule, value in zip(journal.rules[1:], others, strict=True)]
        covered = journal.inside[h - 1] / journal.counts[h - 1]
        lines.append(
            f"{h} ahead: mean absolute error {ours:.4g}; {', '.join(words)}; "
            f"{covered:.1%} of the values were inside the interval"
        )
        best = min(others)
        name = journal.rules[1 + others.index(best)]
        if ours > best:
            lines.append(
                f"{h} ahead: does NOT beat {name}, by {ours / max(best, 1e-30) - 1:.1%}: use {name}"
            )
        else:
            lines.append(f"{h} ahead: better than {name} by {1 - ours / max(best, 1e-30):.1%}")
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
            found = round(season / step)
            return found if 2 <= found <= 3000 else 0
    return 0
