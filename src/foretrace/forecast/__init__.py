"""How do rows of a table become forecasts, and how good are these?

A `Source` yields the cells of each row, `read_rows` makes numbers of them, `Clock` finds gaps and
repetitions in their times, the model of `foretrace.stream` learns and forecasts, `ScoreKeeper` compares.
`forecast_file` does all of it for a file, a pipe or any lines of text; `foretrace forecast` calls it.
"""

from foretrace.forecast._calendar import Calendar
from foretrace.forecast._clock import Clock
from foretrace.forecast._columns import Columns
from foretrace.forecast._fleet import FleetForecasts
from foretrace.forecast._forecast_file import forecast_file
from foretrace.forecast._forecasts import Forecasts
from foretrace.forecast._members import Member, SeriesScore, score_of
from foretrace.forecast._predictions import Bounds, Predictions, read_fleet, read_predictions
from foretrace.forecast._row_forecast import Ahead, RowForecast
from foretrace.forecast._rows import Row, read_rows
from foretrace.forecast._scores import RuleScore, Score, ScoreKeeper, season_of, summary
from foretrace.forecast._sources import (
    CsvSource,
    JsonLinesSource,
    ParquetSource,
    Source,
    open_source,
    standard_input,
)
from foretrace.forecast._spacing import Stamp, stamp_of

__all__ = [
    "Ahead",
    "Bounds",
    "Calendar",
    "Clock",
    "Columns",
    "CsvSource",
    "FleetForecasts",
    "Forecasts",
    "JsonLinesSource",
    "Member",
    "ParquetSource",
    "Predictions",
    "Row",
    "RowForecast",
    "RuleScore",
    "Score",
    "ScoreKeeper",
    "SeriesScore",
    "Source",
    "Stamp",
    "forecast_file",
    "open_source",
    "read_fleet",
    "read_predictions",
    "read_rows",
    "score_of",
    "season_of",
    "stamp_of",
    "standard_input",
    "summary",
]
