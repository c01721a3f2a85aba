"""What arguments have in common: counts and numbers within bounds, refused with a remedy."""

import operator
from typing import Any


def check_count(name: str, value: Any, remedy: str) -> int:
    """Raises TypeError or ValueError unless `value` is an int >= 1, which it returns."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an int >= 1; got {value!r}; {remedy}.")
    if operator.index(value) < 1:
        raise ValueError(f"{name} must be an int >= 1; got {value}; {remedy}.")
    return operator.index(value)


def check_number(name: str, value: Any, bound: str, remedy: str) -> None:
    """Raises ValueError unless `value` is finite and within `bound`, "> 0" or ">= 0"."""
    if not (0 < value < float("inf") or (bound == ">= 0" and value == 0)):
        raise ValueError(f"{name} must be a number {bound}; got {value!r}; {remedy}.")
