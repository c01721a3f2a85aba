"""Arguments within bounds, or refused in one sentence: argument, what it must be, what came, the remedy."""

import contextlib
import errno
import importlib
import operator
from collections.abc import Iterator
from os import PathLike
from typing import Any


class UserError(ValueError):
    """Something a user gave that cannot be used, in one sentence; every other exception is a bug.

    The command line prints the sentence and exits with 2; a bug keeps its traceback.
    """


class UserTypeError(UserError, TypeError):
    """A `UserError` about the kind of a value, not its size or shape."""


def check_positive_int(name: str, value: Any, remedy: str) -> int:
    """Raises TypeError or ValueError unless `value` is an int >= 1, which it returns."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise UserTypeError(f"{name} must be an int >= 1; got {value!r}; {remedy}.")
    if operator.index(value) < 1:
        raise UserError(f"{name} must be an int >= 1; got {value}; {remedy}.")
    return operator.index(value)


def check_kind(name: str, value: Any, kind: type, remedy: str) -> None:
    """Raises TypeError unless `value` is of this class."""
    if not isinstance(value, kind):
        got = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise UserTypeError(f"{name} must be a {kind.__name__}; got {got}; {remedy}.")


def check_number(name: str, value: Any, bound: str, remedy: str) -> None:
    """Raises TypeError or ValueError unless `value` is finite and within `bound`, "> 0" or ">= 0"."""
    if not hasattr(value, "__float__"):
        raise UserTypeError(f"{name} must be a number {bound}; got {value!r}; {remedy}.")
    if not (0 < value < float("inf") or (bound == ">= 0" and value == 0)):
        raise UserError(f"{name} must be a number {bound}; got {value!r}; {remedy}.")


@contextlib.contextmanager
def noted(note: str) -> Iterator[None]:
    """Adds a note to what a user's own function raises, which keeps its kind and its traceback."""
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise


@contextlib.contextmanager
def checked_path(name: str, path: str | PathLike, kind: str, remedy: str) -> Iterator[None]:
    """Raises UserError for what the operating system refuses of a path that a user gave.

    Args:
        name: of the argument.
        path: its value.
        kind: what it must be, such as "a folder that can be written".
        remedy: what to do about it.
    """
    try:
        yield
    except OSError as error:
        # Leave a closed pipe, and errors that are already a sentence.
        if isinstance(error, UserError) or error.errno == errno.EPIPE:
            raise
        reason = error.strerror or error
        raise UserError(f"{name} must be {kind}; got {str(path)!r}: {reason}; {remedy}.") from error


def import_extra(module: str, extra: str) -> Any:
    """Imports a package that comes with one of foretrace's extras.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing_extra(error, extra) from None


def missing_extra(error: ModuleNotFoundError, extra: str) -> UserError:
    """One sentence on the package that is not there."""
    package = str(error.name).partition(".")[0]
    remedy = f"pip install 'foretrace[{extra}]' brings it"
    return UserError(f"{package} must be installed for this; got none; {remedy}.")
