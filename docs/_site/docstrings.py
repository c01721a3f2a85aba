"""Docstrings, in Google's sections or NumPy's, as MyST Markdown."""

import inspect
import re
import textwrap
from typing import Any, NamedTuple

_HEADS = "Args|Attributes|Returns|Yields|Raises|Example|Examples|Source|Note|Parameters"


class Section(NamedTuple):
    """A part of a docstring: its heading, empty for the prose before and between, and its text."""

    head: str
    text: str


def sections_of(thing: Any) -> list[Section]:
    """The docstring of anything, cut at its headings."""
    text = inspect.getdoc(thing) or ""
    text = re.sub(rf"^({_HEADS})\n-+$", r"\1:", text, flags=re.MULTILINE)  # NumPy's, which River has
    found: list[tuple[str, list[str]]] = [("", [])]
    for line in text.splitlines():
        if head := re.fullmatch(rf"({_HEADS}):", line):
            found.append((head[1], []))
        elif inline := re.match(r"(Exactness|Cost|Source): (.*)", line):
            found.append((inline[1], [inline[2]]))
        else:
            within = found[-1][0]
            # Prose after an indented section is prose again.
            if (
                within in _HEADS.split("|")
                and within not in ("Parameters", "Examples")
                and line[:1].strip()
            ):
                if not (within == "Source" and found[-1][1]):
                    found.append(("", []))
            elif within in ("Exactness", "Cost") and not line.strip():
                found.append(("", []))
            found[-1][1].append(line)
    cut = [Section(head, textwrap.dedent("\n".join(lines)).strip("\n")) for head, lines in found]
    return [section for section in cut if section.text.strip()]


def summary_of(thing: Any) -> str:
    """The first paragraph on one line, as Markdown."""
    return prose(" ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split()))


def prose(text: str) -> str:
    """A paragraph with what Markdown would read otherwise escaped, but for code between backticks."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([<*$\\\[\]_])", r"\\\1", part) for part in parts
    )


def markdown(sections: list[Section]) -> str:
    """Sections one below the other."""
    return "\n\n".join(_SHOW.get(section.head, _paragraphs)(section) for section in sections)


def _paragraphs(section: Section) -> str:
    shown = [
        _fenced(block, "text") if block.startswith("    ") else prose(block)
        for block in re.split(r"\n\n(?! )|\n\n(?=    )|(?<=\n)\n(?=\S)", section.text)
        if block.strip()
    ]
    if section.head and shown:
        shown[0] = f"**{section.head}.** {shown[0]}"
    return "\n\n".join(shown)


def _fenced(block: str, language: str) -> str:
    return f"```{language}\n{textwrap.dedent(block)}\n```"


def _names(section: Section) -> str:
    items: list[list[str]] = []
    for line in section.text.splitlines():
        if line and not line.startswith(" "):
            name, _, rest = line.partition(": ")
            items.append([name.removesuffix(":"), rest.strip()])
        elif items and line.strip():
            items[-1][1] += f" {line.strip()}"
    rows = [f"- `{name}`: {prose(text.strip())}" for name, text in items]
    head = "Parameters" if section.head == "Args" else section.head
    return f"**{head}**\n\n" + "\n".join(rows)


def _raises(section: Section) -> str:
    return f"**Raises.** {prose(' '.join(section.text.split()))}"


_SHOW = {
    "Args": _names,
    "Attributes": _names,
    "Parameters": _names,
    "Raises": _raises,
    "Example": lambda section: "**Example**\n\n" + _fenced(section.text, "pycon"),
    "Examples": lambda section: "**Example**\n\n" + _fenced(section.text, "pycon"),
}
