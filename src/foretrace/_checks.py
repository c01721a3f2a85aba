"""Arguments within bounds, or refused in one sentence: argument, what it must be, what came, the remedy."""

import operator
from typing import Any


class UserError(ValueError):
    """Something a user gave that cannot be used, in one sentence; every other exception is a bug.

    The command line prints the sentence and exits with 2; a bug keeps its traceback.
    """


class UserTypeError(UserError, TypeError):
    """A `UserError` about the kind of a value, not its size or shape."""


def check_count(name: str, value: Any, remedy: str) -> int:
    """Raises TypeError or ValueError unless `value` is an int >= 1, which it returns."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise UserTypeError(f"{name} must be an int >= 1; got {value!r}; {remedy}.")
    if operator.index(value) < 1:
        raise UserError(f"{name} must be an int >= 1; got {value}; {remedy}.")
    return operator.index(value)


def check_number(name: str, value: Any, bound: str, remedy: str) -> None:
    """Raises ValueError unless `value` is finite and within `bound`, "> 0" or ">= 0"."""
    if not (0 < value < float("inf") or (bound == ">= 0" and value == 0)):
        raise UserError(f"{name} must be a number {bound}; got {value!r}; {remedy}.")
