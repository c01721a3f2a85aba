"""Numbers from the cells of a table, however these are written."""

import contextlib
import math
import re
from typing import Any

from foretrace._checks import UserError

_UNKNOWN = frozenset({"", "nan", "na", "n/a", "null", "none", "?"})
_BOOLEANS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "on": 1.0, "off": 0.0}


class NumberReader:
    """Reads the numbers of one table, which have one decimal mark.

    Attributes:
        mark: the decimal mark, "." or ","; empty until a number shows it.
        is_comma_between_cells: whether commas lie between the cells too, so that those within one are rare.
    """

    def __init__(self, *, is_comma_between_cells: bool = True):
        self.mark = ""
        self.is_comma_between_cells = is_comma_between_cells

    def __call__(self, cell: Any, column: str, place: str) -> float:
        """The number in a cell, NaN if it is unknown.

        Raises:
            UserError: it has none.
        """
        text = cell.strip() if isinstance(cell, str) else cell
        if text is None or (isinstance(text, str) and text.lower() in _UNKNOWN):
            return math.nan
        try:
            value = self._of_text(text) if isinstance(text, str) else float(text)
        except (TypeError, ValueError):
            remedy = "repair it or choose others"
            if isinstance(text, str) and re.fullmatch(r"[+-]?[\d.,]+", text):
                remedy = "it is unclear which mark is the decimal one: write 1234.5 everywhere"
            raise UserError(
                f"{column} must be a number or empty; got {repr(cell)[:60]} in {place}; {remedy}."
            ) from None
        if math.isinf(value):
            raise UserError(
                f"{column} must be finite or empty; got {cell!r} in {place}; leave it empty if "
                "it is unknown."
            )
        return value

    def _of_text(self, text: str) -> float:
        if "," not in text and self.mark != ",":  # nearly always
            with contextlib.suppress(ValueError):
                value = float(text)
                self.mark = "." if "." in text else self.mark
                return value
        if text.lower() in _BOOLEANS:
            return _BOOLEANS[text.lower()]
        marks = re.sub("[^.,]", "", text)
        if not marks:
            return float(text)
        if len(set(marks)) == 2:
            mark = marks[-1]  # 1.234,5 and 1,234.5
        elif len(marks) > 1:
            mark = "." if marks[0] == "," else ","  # 1,234,567
        elif self.mark and marks != self.mark:
            mark = self.mark
        elif marks == "," and not self.mark and self.is_comma_between_cells and _is_grouped(text, ","):
            raise ValueError  # 1,234 may be either
        else:
            mark = marks
        groups = "." if mark == "," else ","
        if groups in text:
            if not _is_grouped(text.partition(mark)[0], groups):
                raise ValueError
            text = text.replace(groups, "")
        if self.mark not in ("", mark) or re.search(r",(?!\d)", text):
            raise ValueError
        value = float(text.replace(",", "."))
        self.mark = mark
        return value


def _is_grouped(text: str, mark: str) -> bool:
    """Whether marks lie between groups of three digits."""
    return re.fullmatch(rf"[+-]?\d{{1,3}}(?:{re.escape(mark)}\d{{3}})+", text) is not None
