"""Forecasting the rows of a file or a pipe: rows, clock and the keeper of scores."""

from foretrace.forecast._clock import Clock
from foretrace.forecast._journal import HEADING, Journal, season_of, summary
from foretrace.forecast._rows import Columns, Row, follow_rows, read_rows

__all__ = [
    "HEADING",
    "Clock",
    "Columns",
    "Journal",
    "Row",
    "follow_rows",
    "read_rows",
    "season_of",
    "summary",
]
