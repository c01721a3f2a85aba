"""BibTeX of the papers that learners come from, and of this software: papers.bib."""

import inspect
from collections.abc import Callable
from importlib import resources

from foretrace._checks import UserError, UserTypeError
from foretrace._types import Learner
from foretrace.learners._catalogue._names import SPECS, Choice, parse

# Of the learners of `contrib`, which have no `SPEC`; all others name theirs there.
_CONTRIB: dict[str, tuple[str, ...]] = {
    "r_kf_rtrl": ("marschall2020unified",),
    "pre_uoro": ("cooijmans2019variance",),
    "artbp": ("tallec2017unbiasing",),
    "kernl": ("roth2019kernel",),
    "dni": ("jaderberg2017decoupled",),
}


def papers() -> dict[str, tuple[str, ...]]:
    """Keys of papers.bib by the name of the learner."""
    return {name: spec.papers for name, spec in SPECS.items()} | _CONTRIB


def entries() -> dict[str, str]:
    """All of papers.bib by key."""
    text = resources.files(__package__ or "").joinpath("papers.bib").read_text(encoding="utf-8")
    return {
        entry[entry.index("{") + 1 : entry.index(",")]: f"@{entry.strip()}"
        for entry in f"\n{text}".split("\n@")[1:]
    }


def citation(learner: str | Choice | Callable[..., Learner]) -> str:
    """The BibTeX of foretrace and of the papers that a learner comes from.

    Args:
        learner: its name, such as "ok:16/8", or the function that makes it, such as `ft.ok` or
            `ft.contrib.artbp`.

    Returns:
        BibTeX entries with an empty line between them, foretrace's own first.

    Raises:
        TypeError, ValueError: there is no such learner.

    Example:
        >>> import foretrace as ft
        >>> [line for line in ft.citation("kf_rtrl").splitlines() if line.startswith("@")]
        ['@software{foretrace,', '@inproceedings{mujika2018approximating,']
    """
    from foretrace import __version__  # which imports this file first

    keys, known = papers()[_name(learner)], entries()
    own = known["foretrace"].replace("VERSION", __version__)
    return "\n\n".join([own, *(known[key] for key in keys)])


def _name(learner: object) -> str:
    if isinstance(learner, Choice):
        return learner.spec.name
    if isinstance(learner, str):
        return learner if learner in papers() else parse(learner).spec.name
    if not inspect.isfunction(learner):
        raise UserTypeError(
            f"learner must be a name or the function that makes it; got {type(learner).__name__}; "
            'write "ok:16" or ft.ok.'
        )
    if learner.__name__ not in papers() or not learner.__module__.startswith("foretrace.learners."):
        raise UserError(
            f"learner must be one of foretrace's; got {learner.__name__}; choose one of {', '.join(SPECS)}."
        )
    return learner.__name__
