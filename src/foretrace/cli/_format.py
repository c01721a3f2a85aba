"""Lines that several commands print."""

import contextlib
import dataclasses
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from foretrace import training
from foretrace._checks import UserError
from foretrace.cli import _job
from foretrace.cli._tasks import Problem
from foretrace.runs import checkpoint
from foretrace.tasks import TASKS


def split_task(words: Sequence[str], prog: str) -> tuple[str, list[str]]:
    """The task that was typed, and the words after it; `--help` alone shows the first task's.

    Raises:
        ValueError: there is no such task.
    """
    if words[:1] in (["--help"], ["-h"]):
        return "copy", ["--help"]
    if not words or words[0] not in TASKS:
        raise UserError(
            f"task must be one of {', '.join(TASKS)}; got {' '.join(words[:1]) or 'none'!r}; "
            f"write {prog} copy, say."
        )
    return words[0], list(words[1:])


def plan(task: str, options: Any, problem: Problem, run: _job.Run) -> list[str]:
    """Task, network, learner and optimiser with their costs, in lines."""
    cell, cost = run.explanation, run.cost
    groups = f"{cell.groups} Kronecker group{'' if cell.groups == 1 else 's'}"
    every = "step" if run.update_every == 1 else f"{run.update_every} steps"
    lanes = f"{options.lanes} lane{'' if options.lanes == 1 else 's'}"
    falling = f", falling by 1 + {options.decay:g} sqrt(t)" if options.decay else ""
    clip = f", clip {options.clip:g}" if options.clip else ""
    parameters = f"{cell.parameters:,} parameter{'' if cell.parameters == 1 else 's'}"
    return [
        f"{task} task, {lanes}, {run.steps:,} steps",
        f"{problem.network}: {parameters} in {groups}",
        f"{run.label}, block {run.block}: {amount(cost.bytes)}B of influence and window, "
        f"{flop(cost.operations)} per step",
        f"{options.optimizer} {options.learning_rate:g}{falling}{clip}, one update every {every}",
    ]


def summary(problem: Problem, records: list[dict[str, Any]]) -> str:
    """Where a run arrived, in words."""
    task, last = problem.task, records[-1]
    ends = [
        f"{m.name} = {last[m.name]}" if m.start is not None else f"{m.name} {last[m.name]:.4g}"
        for m in task.shown
    ]
    floor = f" (floor {task.floor:.3f})" if task.floor else ""
    loss = task.loss_metric
    return ", ".join([*ends, f"{tail_mean(records, loss.name):.4g} {loss.label}{floor}"])


def config(options: Any, **resolved: Any) -> dict[str, Any]:
    """Options as JSON: resolved values replace typed ones; None is left out."""
    entries = dataclasses.asdict(options) | resolved
    texts = {name: str(value) if isinstance(value, Path) else value for name, value in entries.items()}
    return {name: value for name, value in texts.items() if value is not None}


def tail_mean(records: list[dict[str, Any]], name: str) -> Any:
    """Mean over the last tenth of a run: one chunk alone is noisy."""
    return np.mean([record[name] for record in records[-max(1, len(records) // 10) :]], axis=0)


def amount(value: int | float) -> str:
    """A number with three digits and the prefix of its unit."""
    power = min(3, max(0, (len(str(int(value))) - 1) // 3))
    return f"{value / 1000**power:.3g} {('', 'k', 'M', 'G')[power]}"


def flop(operations: int) -> str:
    """Operations of a step; of cells without a matrix product of weights, none are counted."""
    return f"{amount(operations)}FLOP" if operations else "few FLOP"


def say(console: Console, *lines: str) -> None:
    """Prints lines as they are."""
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


@contextlib.contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Prints a run's warnings as one line each."""
    kinds = checkpoint.CheckpointWarning, training.InfluenceWarning
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message, category, *where, **how):
            if issubclass(category, kinds):
                print(f"foretrace: warning: {message}.", file=sys.stderr)
            else:
                others(message, category, *where, **how)

        for kind in kinds:
            warnings.simplefilter("always", kind)
        warnings.showwarning = show
        yield
