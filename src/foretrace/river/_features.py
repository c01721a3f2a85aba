"""Features by name as vectors: they may come in any order, appear and vanish."""

import math
from typing import Any

import numpy as np

from foretrace._checks import UserError, UserTypeError
from foretrace.stream import float_array


class Features:
    """Which place each feature has; a new one gets the next.

    Attributes:
        places: place of each name.
        room: length of the vectors, a power of two, or 0.
    """

    def __init__(self, places: dict[Any, int] | None = None):
        self.places: dict[Any, int] = places or {}

    @property
    def room(self) -> int:
        """Length of the vectors: places double, so that networks seldom have to grow."""
        return 1 << (len(self.places) - 1).bit_length() if self.places else 0

    def meet(self, names: Any) -> bool:
        """Gives places to names that are new, in alphabetical order; returns whether room was made."""
        before = self.room
        for name in sorted((n for n in names if n not in self.places), key=str):
            self.places[name] = len(self.places)
        return self.room != before

    def vector(self, x: dict[Any, Any]) -> np.ndarray:
        """The features that have a place, not a number where one is missing, (room,).

        Raises:
            TypeError: if one is not a number.
            ValueError: if one is infinite.
        """
        values = np.full(self.room, np.nan)
        for name, value in x.items():
            if name in self.places:
                values[self.places[name]] = number(name, value)
        return float_array(values)

    def table(self, columns: dict[Any, list], rows: int) -> np.ndarray:
        """Many rows at once, (rows, room)."""
        values = np.full((rows, self.room), np.nan)
        for name, column in columns.items():
            if name in self.places:
                values[:, self.places[name]] = [number(name, value) for value in column]
        return float_array(values)


def number(name: Any, value: Any) -> float:
    """A feature as a float; None is an unknown number."""
    if value is None:
        return math.nan
    # Text that looks like a number is still text: other samples may hold other text.
    found = None if isinstance(value, str | bytes) or not hasattr(value, "__float__") else float(value)
    if found is None:
        raise UserTypeError(
            f"{name!r} must be a number; got {value!r}; put preprocessing.OneHotEncoder() before the "
            f"model, or leave it out."
        )
    if math.isinf(found):
        raise UserError(f"{name!r} must be finite, or None where it is unknown; got {value}; drop it.")
    return found
