"""The axis of time of a page: dates, numbers or rows."""

from typing import Any

import numpy as np

from foretrace.forecast import Predictions
from foretrace.plotting._pages._layout import numbers


class Axis:
    """Times of a run as plotly.js takes them: milliseconds of dates, or numbers."""

    def __init__(self, rows: Predictions):
        self.dated = rows.dated

    def of(self, when: Any) -> list[Any]:
        """Times, (n,), on the axis."""
        if self.dated:
            return [round(1000 * second) for second in np.asarray(when, float).tolist()]
        return numbers(when)

    def words(self, **others: Any) -> dict[str, Any]:
        """The axis for a layout."""
        return {"type": "date"} | others if self.dated else {"type": "linear", "hoverformat": "~r"} | others
