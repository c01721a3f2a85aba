"""Parses options; refuses bad words in one sentence."""

import contextlib
import dataclasses
import io
import math
import re
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

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
            parsed = tyro.cli(options, args=words, prog=prog)
    except SystemExit as stop:
        if not stop.code:
            raise
        # Tyro gives no message as data. All that it draws, in one line, is right but long.
        reason = refusal(options, words) or " ".join(_FRAME.sub(" ", drawn.getvalue()).split()).rstrip(".")
    else:
        # Tyro takes no word at all for the path of the present folder, which it would then be.
        reason = (
            refusal(options, words) if any(word == "" or word.endswith("=") for word in words) else None
        )
        if reason is None:
            return parsed
    raise UserError(f"{reason}; see {prog} --help.")


class _Option(NamedTuple):
    """One field of a dataclass of options.

    Attributes:
        name: as it is typed, or that of the place where its word stands.
        kinds: types and literals that one word may be.
        words: how many it takes; those of a flag are none.
        has_place: whether its words stand alone, without a name before them.
        must: whether it has no default.
        shown: the kinds, in words.
    """

    name: str
    kinds: list[Any]
    words: int | float
    has_place: bool
    must: bool
    shown: str


def refusal(options: type, words: Sequence[str]) -> str | None:
    """Names the first word that a dataclass of options does not take, or an option that is missing.

    Args:
        options: the dataclass.
        words: words that tyro refused.

    Returns:
        None if the words seem right.
    """
    known = _options(options)
    places = [option for option in known.values() if option.has_place]
    option, left, missing = None, 0, {option.name for option in known.values() if option.must}
    for word in [*words, "--"]:
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if name:
            if option and 0 < left < math.inf:
                return f"{option.name} must be {option.shown}; got nothing"
            if word == "--":
                break
            field = name[2:].replace("-", "_")
            option = known.get(field) or known.get(field.removeprefix("no_"))
            if option is None or option.has_place or (option.words and field not in known):
                return f"option must be one of those that this command has; got {word!r}"
            left = option.words
            missing.discard(option.name)
            if not equals:
                continue
        if not left:
            if not places:
                return f"option must begin with --; got {word!r}"
            option = places.pop(0)
            left = option.words
            missing.discard(option.name)
        if option and not any(_fits(value, kind) for kind in option.kinds):
            return f"{option.name} must be {option.shown}; got {value!r}"
        left -= 1
    return f"{min(missing)} must be given; got none" if missing else None


def _options(options: type) -> dict[str, _Option]:
    """The fields of a dataclass."""
    known, marked = {}, typing.get_type_hints(options, include_extras=True)
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        marks = getattr(marked[field.name], "__metadata__", ())
        kinds = list(dict.fromkeys(_kinds(hints[field.name])))
        # What is None unless given is left out, and not typed.
        shown = [kind for kind in kinds if kind is not type(None) or field.default is not None]
        has_place = tyro.conf.Positional in marks
        known[field.name] = _Option(
            name=field.name if has_place else "--" + field.name.replace("_", "-"),
            kinds=kinds,
            words=1 if tyro.conf.UseAppendAction in marks else _count(hints[field.name]),
            has_place=has_place,
            must=field.default is dataclasses.MISSING,
            shown=" or ".join(map(_describe, shown)),
        )
    return known


def _count(hint: Any) -> int | float:
    """The number of words of an option."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return max(map(_count, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)
        return math.inf if Ellipsis in inner else len(inner)
    return 0 if hint is bool else 1


def _kinds(hint: Any) -> Iterator[Any]:
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
    if kind is Path:
        return word != ""
    if kind in (int, float):
        with contextlib.suppress(ValueError):
            kind(word)
            return True
        return False
    return True


def _describe(kind: Any) -> str:
    if isinstance(kind, tuple):
        return ("one of " if len(kind) > 1 else "") + ", ".join(kind)
    words = {int: "an int", float: "a number", Path: "a path", str: "a word", type(None): "None"}
    return words.get(kind, str(kind.__name__))
