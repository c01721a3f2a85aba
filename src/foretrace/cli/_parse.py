"""Options from words, with what is wrong said in one sentence."""

import contextlib
import io
import re
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import tyro

from foretrace._checks import UserError

_T = TypeVar("_T")
_FRAME = re.compile("[\u2500-\u257f]")


def parse(options: type[_T], words: Sequence[str], prog: str) -> _T:
    """Parses with tyro.

    Args:
        options: a dataclass.
        words: what was typed after `prog`.
        prog: the command, as typed.

    Raises:
        UserError: the words do not fit; one sentence.
    """
    drawn = io.StringIO()
    try:
        with contextlib.redirect_stderr(drawn):
            return tyro.cli(options, args=words, prog=prog)
    except SystemExit as stop:
        if not stop.code:
            raise
        # Tyro gives no message as data. All that it draws, in one line, is right but long.
        reason = refusal(options, words) or " ".join(_FRAME.sub(" ", drawn.getvalue()).split()).rstrip(".")
        raise UserError(f"{reason}; see {prog} --help.") from None


def refusal(options: type, words: Sequence[str]) -> str | None:
    """Names the first option that a dataclass does not have, or whose value is of another kind.

    Args:
        options: the dataclass.
        words: words that tyro refused.

    Returns:
        None if neither is it, such as where an option is missing.
    """
    hints = typing.get_type_hints(options)
    kinds = {name: list(dict.fromkeys(_kinds(hint))) for name, hint in hints.items()}
    name = ""
    for word in words:
        if word.startswith("--"):
            option, equals, value = word[2:].partition("=")
            name = option.replace("-", "_")
            if name not in kinds and not (name.startswith("no_") and kinds.get(name[3:]) == [bool]):
                return f"option must be one of those that this command has; got {word!r}"
            values = [value] if equals else []
        else:
            values = [word]
        for value in values if name in kinds else []:
            if not any(_fits(value, kind) for kind in kinds[name]):
                return f"{name} must be {' or '.join(map(_describe, kinds[name]))}; got {value!r}"
    return None


def _kinds(hint: Any) -> Any:
    """The types and literals that one word of an option may be."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        yield typing.get_args(hint)
    elif origin in (tuple, typing.Union, types.UnionType):
        for inner in typing.get_args(hint):
            yield from _kinds(inner)
    elif hint is not Ellipsis:
        yield hint


def _fits(word: str, kind: Any) -> bool:
    if isinstance(kind, tuple):
        return word in kind
    if kind is type(None):
        return word == "None"
    if kind in (int, float):
        with contextlib.suppress(ValueError):
            kind(word)
            return True
        return False
    return True


def _describe(kind: Any) -> str:
    if isinstance(kind, tuple):
        return ("one of " if len(kind) > 1 else "") + ", ".join(kind)
    return {int: "an int", float: "a number", type(None): "None"}.get(kind, str(kind.__name__))
