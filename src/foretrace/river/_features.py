"""Features by name as vectors: they may come in any order, appear later, or be missing."""

import datetime
import math
from typing import Any

import numpy as np

from foretrace._checks import UserError, UserTypeError
from foretrace.stream import pairs


class Features:
    """Index of each feature in a vector; a new one gets the next.

    Attributes:
        index: by name.
        capacity: length of the vectors, a power of two, or 0.
    """

    def __init__(self, index: dict[Any, int] | None = None):
        self.index: dict[Any, int] = index or {}

    @property
    def capacity(self) -> int:
        """Length of the vectors, which doubles, so that networks seldom have to grow."""
        return 1 << (len(self.index) - 1).bit_length() if self.index else 0

    def register(self, names: Any) -> None:
        """Gives the next indices to new names, in alphabetical order."""
        for name in sorted((n for n in names if n not in self.index), key=str):
            self.index[name] = len(self.index)

    def vector(self, x: dict[Any, Any]) -> np.ndarray:
        """The registered features, NaN where one is missing, pairs (capacity, 2).

        Raises:
            TypeError: if one is not a number.
            ValueError: if one is infinite.
        """
        values = np.full(self.capacity, np.nan)
        for name, value in x.items():
            if name in self.index:
                values[self.index[name]] = to_float(name, value)
        return pairs(values)

    def table(self, columns: dict[Any, list], rows: int) -> np.ndarray:
        """Many rows at once, pairs (rows, capacity, 2)."""
        values = np.full((rows, self.capacity), np.nan)
        for name, column in columns.items():
            if name in self.index:
                values[:, self.index[name]] = [to_float(name, value) for value in column]
        return pairs(values)


def is_missing(value: Any) -> bool:
    """Whether a feature or label is one that pandas, NumPy or Python has for a missing value.

    None, NaN, NaT, `pandas.NA` and a decimal that is not a number have in common that they are not equal to
    themselves.
    """
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:  # the truth of pandas.NA
        return True


def to_plain(value: Any) -> Any:
    """Turns a scalar of NumPy into one of Python, which JSON can store; leaves others alone."""
    return value.item() if isinstance(value, np.generic) else value


def to_float(name: Any, value: Any) -> float:
    """A feature as a float, NaN if it is missing."""
    if is_missing(value):
        return math.nan
    # Text that looks like a number is still text: other samples may hold other text.
    is_number = hasattr(value, "__float__") and not isinstance(value, str | bytes | np.datetime64)
    number = float(value) if is_number else None
    if number is None:
        remedy = "put preprocessing.OneHotEncoder() before the model"
        if _is_date(value):
            remedy = "make numbers of it, such as its hour and its weekday, by compose.FuncTransformer"
        raise UserTypeError(f"{name!r} must be a number; got {value!r}; {remedy}, or leave it out.")
    if math.isinf(number):
        raise UserError(f"{name!r} must be finite, or None where it is unknown; got {value}; drop it.")
    return number


def _is_date(value: Any) -> bool:
    """Whether a value, or the text that it is, is a date or a time of the day."""
    if not isinstance(value, str):
        return isinstance(value, datetime.date | datetime.time | np.datetime64)
    try:
        datetime.datetime.fromisoformat(value)
    except ValueError:
        return False
    return True
