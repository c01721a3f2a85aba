"""Writes docs/refusals: what foretrace refuses, room by room, from the tests that provoke it."""

import importlib
import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any

from . import docstrings

RECORD = json.loads((Path(__file__).parents[1] / "refusals.json").read_text())
HEAD = """# Refusals

Whatever cannot be used is refused in one sentence: argument, what it must be, what came, and the remedy.
In Python that is a `ValueError`, also a `TypeError` where the kind of a value is wrong, before anything is
traced. A command prints the sentence, exits with 2 (with 1 where a run cannot go on for a reason outside of
its options), and leaves nothing half-written. Any other exception is a bug of foretrace.

Here is each of them, with a call that provokes it and the answer. The calls are those of the tests: a name
such as `cell` or `learner` in them is an ordinary one. The search finds a sentence by its words.
"""


def write(folder: Path, write_page: Any) -> None:
    """Writes a page for each room, and one that lists them."""
    rows, rooms = [], {}
    for entry in RECORD:
        rooms.setdefault(entry["file"].partition("/")[0].removesuffix(".py"), []).append(entry)
    for room, entries in rooms.items():
        name = room.lstrip("_")
        title = "arguments anywhere" if name == "checks" else f"foretrace.{name}"
        module = importlib.import_module(f"foretrace.{room}")
        write_page(folder / f"{name}.md", _page(f"Refusals: {title}", entries))
        rows.append(f"| [{title}]({name}.md) | {docstrings.summary_of(module)} | {len(entries)} |")
    pages = "\n".join(room.lstrip("_") for room in rooms)
    table = "\n".join(["| room | | refusals |", "|---|---|---|", *rows])
    write_page(folder / "index.md", f"{HEAD}\n{table}\n\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n")


def _page(title: str, entries: list[dict[str, str]]) -> str:
    parts, anchors = [f"# {title}"], set[str]()

    def of(entry: dict[str, str]) -> tuple[str, str]:
        return entry["file"], entry["sentence"]

    for (file, sentence), examples in groupby(sorted(entries, key=of), key=of):
        examples = list(examples)
        heading = _heading(sentence, examples[0]["says"])
        words = re.findall(r"[a-z0-9]+", f"{file.removesuffix('.py')} {sentence}".lower())
        anchor = short = "-".join(["refusal", *words[:10]])
        while anchor in anchors:
            anchor = f"{short}-{len(anchors)}"
        anchors.add(anchor)
        parts += [f"({anchor})=", f"## {heading}", *map(_example, examples)]
    return "\n\n".join(parts) + "\n"


def _heading(sentence: str, says: str) -> str:
    """What is refused: the sentence up to its first semicolon, with the names of values in it."""
    if not re.search(r"\w{3}", re.sub(r"\{.*?\}", "", sentence)):  # it is made elsewhere
        sentence = says
    text = docstrings.prose(sentence.partition(";")[0].rstrip(".:"))
    return re.sub(r"\{([a-z]\w+)\}", r"*\1*", re.sub(r"\{(?![a-z]).*?\}", "…", text))


def _example(entry: dict[str, str]) -> str:
    is_command = entry["code"].startswith("foretrace ")
    code = _folded(entry["code"]) if is_command else entry["code"]
    answer = f"foretrace: {entry['says']}" if is_command else f"{entry['error']}: {entry['says']}"
    if not entry["is_shown"]:
        answer += " (a part of a longer sentence)"
    # A sentence is as long as it is: it is shown as prose, which a phone can break.
    return f"```{'sh' if is_command else 'python'}\n{code}\n```\n\n> {docstrings.prose(answer)}"


def _folded(command: str) -> str:
    """A long command on lines of its own, each with one option."""
    if len(command) < 90:
        return command
    return re.sub(r" (--[a-z])", r" \\\n    \1", command)
