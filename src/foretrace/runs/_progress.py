"""Progress on a terminal as a bar, elsewhere as about ten plain lines."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from foretrace.tasks._task import Measured


class Reporter:
    """Shows the records of a run while it trains; use it as a context manager."""

    def __init__(self, console: Console, title: str, steps: int, task: Measured):
        """Prepares the display.

        Args:
            console: where to print.
            title: name of the learner.
            steps: time steps of the whole run.
            task: its loss and metrics are shown.
        """
        self._console, self._title, self._steps = console, title, steps
        self._loss_metric, self._shown = task.loss_metric, task.shown
        self._next_line = 0.1 * steps
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=steps, text="compiling")

    def __enter__(self):
        """Starts the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_):
        """Stops the bar."""
        self._bar.stop()

    def show(self, record: dict[str, Any]) -> None:
        """Shows one record of `run`."""
        loss = self._loss_metric
        rate = record["step"] * np.size(record[loss.name]) / max(record["seconds"], 1e-9)
        text = f"{rate:,.0f} steps/s  {np.mean(record[loss.name]):.4g} {loss.name.replace('_', ' ')}"
        for metric in self._shown:
            if metric.name in record:
                text += f"  {metric.name} {np.mean(record[metric.name]):.4g}"
        self._bar.update(self._task, completed=record["step"], text=text)
        if not self._console.is_terminal and record["step"] >= self._next_line:
            while self._next_line <= record["step"]:
                self._next_line += 0.1 * self._steps
            line = f"{self._title}  {record['step']:>9,} of {self._steps:,} steps  {text}"
            self._console.print(line, highlight=False, soft_wrap=True)


class TableOfParts:
    """Shows how far many parts are that run side by side; use it as a context manager."""

    def __init__(self, console: Console, parts: Sequence[tuple[str, int | None]], unit: str):
        """Prepares the display.

        Args:
            console: where to print.
            parts: of each its name and where it ends, or None where that is not known.
            unit: what is counted.
        """
        self._console, self._unit, self._ends = console, unit, dict(parts)
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f} " + unit)
        self._bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self._tasks = {name: self._bars.add_task(name, total=end) for name, end in parts}
        self._counts = dict.fromkeys(self._ends, -1)

    def __enter__(self):
        """Starts the display."""
        self._bars.start()
        return self

    def __exit__(self, *_):
        """Stops it."""
        self._bars.stop()

    def show(self, name: str, count: int) -> None:
        """Shows how far a part is; elsewhere than on a terminal once per quarter of its way."""
        self._bars.update(self._tasks[name], completed=count)
        end = self._ends[name]
        marks = 4 if end else 1
        quarter = marks * count // (end or max(count, 1))
        if not self._console.is_terminal and quarter > self._counts[name]:
            self._counts[name] = quarter
            of = f" of {end:,}" if end else ""
            line = f"{name}  {count:>9,}{of} {self._unit}"
            self._console.print(line, highlight=False, soft_wrap=True)
