"""The series of a fleet: where each is in time, and how well it is forecast."""

import dataclasses
import math
from typing import Any, NamedTuple

from foretrace.forecast._clock import Clock
from foretrace.forecast._replay import Replay
from foretrace.forecast._row_forecast import Ahead
from foretrace.forecast._scores import ScoreKeeper


@dataclasses.dataclass
class Member:
    """One series; everything in it is JSON.

    Attributes:
        name: as in the column.
        clock: where it is in time.
        keeper: its scores; None before its first row.
        replay: the rows that it has learned.
    """

    name: str
    clock: Clock
    keeper: ScoreKeeper | None = None
    replay: Replay = dataclasses.field(default_factory=Replay)

    @classmethod
    def of(cls, record: dict[str, Any], gaps: str) -> "Member":
        """Inverse of `dataclasses.asdict`."""
        keeper = record["keeper"] and ScoreKeeper(**record["keeper"])
        replay = Replay(**record["replay"] | {"skipped": 0})
        return cls(record["name"], Clock.of(record["clock"], gaps), keeper, replay)

    def ahead(self) -> list[Ahead]:
        """The forecasts of the rows after its newest one."""
        forecasts = self.keeper.next_forecasts() if self.keeper else []
        return [Ahead(self.clock.ahead(h), h, *rest) for h, *rest in forecasts]

    def line_of(self, ahead: Ahead) -> str:
        """Series, time, horizon, forecast and bounds, as CSV."""
        return f"{to_cell(self.name)},{self.keeper.line_of(*ahead)}" if self.keeper else ""


class SeriesScore(NamedTuple):
    """How well one series is forecast at the farthest horizon.

    Attributes:
        series: its name.
        rows: so far.
        error: mean absolute error.
        ratio: of it to that of persistence over the same rows; below 1 is better. NaN where there is none.
        coverage: share of the values inside their interval, NaN if there was none.
    """

    series: str
    rows: int
    error: float
    ratio: float
    coverage: float


def score_of(member: Member) -> SeriesScore:
    """How well a series is forecast so far."""
    keeper = member.keeper
    scores = keeper.scores() if keeper else []
    if not keeper or not scores:
        return SeriesScore(member.name, keeper.rows if keeper else 0, math.nan, math.nan, math.nan)
    rule = scores[-1].rules["persistence"]
    ratio = rule.ours / rule.error if rule.error > 0 else math.nan
    return SeriesScore(member.name, keeper.rows, rule.ours, ratio, scores[-1].coverage)


def to_cell(text: str) -> str:
    """A cell of CSV."""
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n\r') else text
