"""One row of any source: what the model is told of it beside its numbers, and the forecasts after it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from foretrace import stream
from foretrace.forecast._clock import Clock
from foretrace.forecast._rows import Row
from foretrace.forecast._scores import season_of
from foretrace.forecast._settings import Settings
from foretrace.forecast._spacing import Stamp


class RowForecast(NamedTuple):
    """A row that was learned, and the forecasts made after it; H is the horizon.

    Attributes:
        time: its time stamp, or its number.
        actual: its target, NaN if unknown.
        forecast: (H,), of the H rows after it.
        lower: (H,), their lower bounds, infinite while unknown.
        upper: (H,), their upper bounds.
        anomaly: share of past errors one row ahead that were smaller than that of `actual`; NaN if unknown.
        series: name of its series; empty where there is only one.
    """

    time: str
    actual: float
    forecast: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    anomaly: float
    series: str = ""


class Ahead(NamedTuple):
    """A forecast of a row to come, with its interval."""

    time: str
    horizon: int
    forecast: float
    lower: float
    upper: float


def row_forecast(row: Row, result: stream.ForecastResult) -> RowForecast:
    """A row with the forecasts made after it."""
    anomaly = math.nan if math.isnan(row.y) else 1 - float(result.tail)
    return RowForecast(row.time, row.y, result.forecast, result.lower, result.upper, anomaly, row.series)


def calendar_of(clock: Clock, row: Row) -> Sequence[float]:
    """What the stamp of the next row of a clock says, (5,)."""
    if not row.dated:
        return stream.unknown_calendar(1)[0].tolist()
    return clock.calendar.add(Stamp(row.when, row.offset))


def season_for(settings: Settings, rows: Sequence[Row]) -> int:
    """Rows of the season of the simple rule beside the model, 0 for none."""
    if settings.period != "auto":
        return settings.period
    return season_of([float(row.when) for row in rows]) if rows[0].dated else 0
