"""What the commands that train say and write down, in the same words."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from foretrace import training


def the_task(words: Sequence[str], prog: str) -> tuple[str, list[str]]:
    """The task that was typed, and the words after it; `--help` alone shows the first task's.

    Raises:
        ValueError: there is no such task.
    """
    if words[:1] in (["--help"], ["-h"]):
        return "copy", ["--help"]
    if words[:1] != ["copy"]:
        raise ValueError(f"task must be copy; got {' '.join(words[:1]) or 'none'!r}; add copy.")
    return words[0], list(words[1:])


def plan(options: training.Settings, job: training.Job) -> list[str]:
    """What will be done and what it costs, in lines."""
    found, cost = job.explanation, job.cost
    groups = f"{found.groups} Kronecker group{'s' if found.groups > 1 else ''}"
    every = "step" if job.update_every == 1 else f"{job.update_every} steps"
    return [
        f"copy task, {options.lanes} lanes, {job.steps:,} steps",
        f"{options.cell}, {options.hidden} units: {found.parameters:,} parameters in {groups}",
        f"{job.label}, block {job.block}: {amount(cost.bytes)}B of influence and window, "
        f"{amount(cost.operations)}FLOP per step",
        f"Adam {options.learning_rate:g}, clip {options.clip:g}, one update every {every}",
    ]


def config(options: Any, **resolved: Any) -> dict[str, Any]:
    """The options as given, replaced by what they came to; without what was not given."""
    found = dataclasses.asdict(options) | {"out": str(options.out)} | resolved
    return {name: value for name, value in found.items() if value is not None}


def late(records: list[dict[str, Any]], name: str) -> Any:
    """Mean over the last tenth of a run: one chunk alone is noisy."""
    return np.mean([record[name] for record in records[-max(1, len(records) // 10) :]], axis=0)


def amount(value: float) -> str:
    """A number with three digits and the prefix of its unit."""
    power = min(3, max(0, (len(str(int(value))) - 1) // 3))
    return f"{value / 1000**power:.3g} {('', 'k', 'M', 'G')[power]}"


def say(console: Console, *lines: str) -> None:
    """Prints lines as they are."""
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
