"""Writes docs/learners: a page for each learner, from its docstring, its SPEC and the records."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

import foretrace as ft
from foretrace._checks import UserError
from foretrace.learners import SPECS, analyse, parse
from foretrace.learners._catalogue._recommend import table
from foretrace.plotting._style import GREY, PALETTE, SMALL, frame, new_figure, save

from . import docstrings

ROOT = Path(__file__).parents[2]
RECORD = json.loads((ROOT / "benchmarks" / "results" / "learners-day.json").read_text())
TASKS = {"copy": "copying strings", "adding": "adding old inputs", "rotation": "a rotation"}
CELLS = {
    "gru, 64 units, 16 inputs": ft.cells.gru(hidden=64, inputs=16),
    "highway, 128 units, 16 inputs": ft.cells.highway(hidden=128, inputs=16),
    "diagonal, 256 units, 16 inputs": ft.cells.diagonal(hidden=256, inputs=16),
    "leaky, 64 units, 16 inputs": ft.cells.leaky(hidden=64, inputs=16),
}
SYMBOLS = """$J$ is the influence matrix $\\mathrm d h_t / \\mathrm d \\theta$, $H$ the state Jacobian,
$I = f \\otimes D$ the immediate Jacobian
with the input factor $f$ and the Jacobian $D$ of the pre-activation,
$c$ the credit
$\\mathrm d \\ell_t / \\mathrm d h_t$, $g$ the gradient, $Q_i$ the product of the state Jacobians after step
$i$ of a block."""


def contrib() -> list[str]:
    """The learners of `ft.contrib`."""
    return [name for name in ft.contrib.__all__ if name.islower() and name != "with_synthesizer"]


def words() -> dict[str, tuple[str, str]]:
    """Equations and advice of learners.md by the learner's name."""
    parts = re.split(r"^# (\w+)\n", (Path(__file__).parent / "learners.md").read_text(), flags=re.MULTILINE)
    written = {
        name: text.partition("\n## When\n") for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    return {name: (equations.strip(), when.strip()) for name, (equations, _, when) in written.items()}


def write(folder: Path, write_page: Any) -> None:
    """Writes a page and a picture for each learner, and the page that lists them."""
    for name in SPECS:
        if drawn := draw(name, folder / f"{name}.png"):
            alt = f"Cosine with the exact gradient, three tasks, {name} in colour: {drawn}"
        else:
            alt = ""
        write_page(folder / f"{name}.md", _page(name, alt))
    for name in contrib():
        write_page(folder / f"{name}.md", _contrib_page(name))
    heading, *rows = table()
    lines = [f"| [{call}]({call.partition('(')[0]}.md) | {' | '.join(rest)} |" for call, *rest in rows]
    pages = "\n".join([*SPECS, "../contrib", *contrib()])
    listed = "\n".join([f"| {' | '.join(heading)} |", "|---" * len(heading) + "|", *lines])
    # What stands before the first learner there is for the page that lists them.
    prose = (Path(__file__).parent / "learners.md").read_text().partition("\n# ")[0]
    write_page(
        folder / "index.md",
        f"# Learners\n\n{prose.replace('TABLE', listed)}\n\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n",
    )


def _page(name: str, alt: str) -> str:
    spec = SPECS[name]
    equations, when = words().get(name, ("", ""))
    claims = [
        ("influence matrix", spec.influence),
        ("exact", "yes" if spec.exact else "no"),
        ("unbiased", "yes" if spec.unbiased else "no"),
        ("memory", spec.memory),
        ("time per step", spec.time),
        ("asks for", spec.requires.text),
        ("source", spec.source),
    ]
    parts = [
        _head(name, spec.factory),
        f"```python\nlearner = ft.{_call(name)}\n```",
        _rows(("", ""), claims),
    ]
    if when:
        parts += ["## When to use it", when]
    parts += _mathematics(spec.factory, equations)
    parts += ["## What it costs", _costs(name)]
    if alt:
        parts += [
            "## How near it comes to the exact gradient",
            f"![{alt}]({name}.png)",
            "Mean cosine with the gradient of exact RTRL along the streams of networks of 64 units "
            "that are half way through learning: `foretrace reproduce learners --scale day`, from "
            "the record "
            "`benchmarks/results/learners-day.json`. [All of it](../experiments.md#learners).",
        ]
    return "\n\n".join([*parts, *_details(f"foretrace.{name}", spec.factory), *_cite(name)])


def _contrib_page(name: str) -> str:
    factory = getattr(ft.contrib, name)
    equations, _ = words().get(name, ("", ""))
    parts = [_head(name, factory), "One of the learners [for comparisons](../contrib.md)."]
    parts += _mathematics(factory, equations)
    return "\n\n".join([*parts, *_details(f"foretrace.learners.contrib.{name}", factory), *_cite(name)])


def _head(name: str, factory: Any) -> str:
    return f"# {name}\n\n{docstrings.summary_of(factory)}"


def _call(name: str) -> str:
    """The call with its default number and, where it takes one, a block of 16."""
    spec = SPECS[name]
    options = [f"{spec.number.keyword}={spec.number.default}"] if spec.number else []
    options += ["block=16"] if spec.takes_block else []
    return f"{name}({', '.join(['cell', *options])})"


def _rows(heading: tuple[str, ...], rows: Any) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(heading)} |", "|---" * len(heading) + "|", *lines])


def _mathematics(factory: Any, equations: str) -> list[str]:
    body = [part for part in docstrings.sections_of(factory) if part.head == ""]
    body[0] = body[0]._replace(text=body[0].text.partition("\n\n")[2])
    text = docstrings.markdown([part for part in body if part.text.strip()])
    if not equations:
        return ["## Equations", text] if text else []
    return ["## Equations", SYMBOLS, equations, "### In the words of the code", text]


def _costs(name: str) -> str:
    choice, rows = parse(name), []
    for label, cell in CELLS.items():
        explanation = analyse(cell)
        if refusal := choice.spec.requires.refusal(explanation.structure):
            rows.append((label, f"{explanation.parameters:,}", f"refused: needs {refusal.needs}", ""))
            continue
        cost = explanation.cost(choice)
        numbers = f"{cost.bytes / 1e3:,.1f} kB", f"{cost.operations / 1e6:,.2f} MFLOP"
        rows.append((label, f"{explanation.parameters:,}", *numbers))
    return f"For `{choice}`, one stream, by `ft.explain(cell).cost`:\n\n" + _rows(
        ("cell", "parameters", "state", "per step"), rows
    )


def _details(dotted: str, factory: Any) -> list[str]:
    shown = [part for part in docstrings.sections_of(factory) if part.head not in ("", "Source")]
    return ["## Reference", f"Call: {{py:obj}}`{dotted}`.", docstrings.markdown(shown)]


def _cite(name: str) -> list[str]:
    factory = SPECS[name].factory if name in SPECS else getattr(ft.contrib, name)
    source = [part for part in docstrings.sections_of(factory) if part.head == "Source"]
    heading = ["## Paper", docstrings.prose(" ".join(source[0].text.split()))] if source else ["## Paper"]
    entry = ft.citation(factory)
    return [*heading, f'`print(ft.citation("{name}"))`:', f"```bibtex\n{entry}\n```"]


def _label_of(name: str) -> list[str]:
    """The record's learners of this name."""
    return [label for label in RECORD["result"]["copy"] if parse(label).spec.name == name]


def draw(name: str, path: Path) -> str:
    """The cosines of all learners, those of one in colour; returns them as words, or nothing."""
    if not _label_of(name):
        return ""
    figure = new_figure(7.2, 3.6)
    axes = figure.subplots(1, 3, sharey=True)
    labels, said = list(RECORD["result"]["copy"]), []
    for place, (task, title) in enumerate(TASKS.items()):
        means = [float(np.mean(RECORD["result"][task][label]["cosine"])) for label in labels]
        colors = [PALETTE[0] if parse(label).spec.name == name else "#BBBBBB" for label in labels]
        axes[place].barh(labels, means, color=colors)
        for row, (mean, label) in enumerate(zip(means, labels, strict=True)):
            if parse(label).spec.name == name:
                # White within a long bar, black behind a short one.
                at, color, side = (
                    (mean - 0.03, "white", "right") if mean > 0.6 else (mean + 0.03, "black", "left")
                )
                where = {"va": "center", "ha": side, "color": color, "fontsize": SMALL}
                axes[place].text(at, row, f"{mean:.3f}", **where)
                said.append(f"{task} {label} {mean:.3f}")
        frame(axes[place], title, "cosine")
        axes[place].set_xlim(0, 1.02)
        axes[place].grid(visible=False, axis="y")
        axes[place].grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes[0].invert_yaxis()
    for text in axes[0].get_yticklabels():
        text.set_color("black" if parse(text.get_text()).spec.name == name else GREY)
    path.parent.mkdir(exist_ok=True)
    save(figure, path)
    return ", ".join(said)


def same_numbers() -> None:
    """Raises unless each learner's equations here are numbered like those of its docstring.

    Raises:
        UserError: they are not; the two have gone apart.
    """
    for name, (equations, _) in words().items():
        factory = getattr(ft, name, None) or getattr(ft.contrib, name)
        own = re.findall(r"   \((\d)\)(?:\s|$)", factory.__doc__ or "")
        here = re.findall(r"\\tag\{(\d)\}", equations)
        if sorted(set(own)) != here:
            raise UserError(
                f"equations of {name} must be those of its docstring, {own}; got {here}; mend learners.md."
            )
