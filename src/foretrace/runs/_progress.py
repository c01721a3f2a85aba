"""Progress on a terminal as a bar, elsewhere as about ten plain lines."""

from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from foretrace.tasks import Loss


class Reporter:
    """Shows the records of a run while it trains; use it as a context manager."""

    def __init__(self, console: Console, title: str, steps: int, loss: Loss):
        """Prepares the display.

        Args:
            console: where to print.
            title: what is being trained.
            steps: time steps of the whole run.
            loss: of the task.
        """
        self._console, self._title, self._steps, self._loss = console, title, steps, loss
        self._next_line = 0.1 * steps
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[seen]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=steps, seen="compiling")

    def __enter__(self):
        """Starts the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_):
        """Stops the bar."""
        self._bar.stop()

    def show(self, record: dict[str, Any]) -> None:
        """Shows one record of `run`."""
        losses = record[self._loss.name]
        rate = record["step"] * np.size(losses) / max(record["seconds"], 1e-9)
        seen = f"{rate:,.0f} steps/s  {np.mean(losses):.4g} {self._loss.name.replace('_', ' ')}"
        for name in ("T", "valid", "theta"):
            if name in record:
                seen += f"  {name} {np.mean(record[name]):.4g}"
        self._bar.update(self._task, completed=record["step"], seen=seen)
        if not self._console.is_terminal and record["step"] >= self._next_line:
            while self._next_line <= record["step"]:
                self._next_line += 0.1 * self._steps
            line = f"{self._title}  {record['step']:>9,} of {self._steps:,} steps  {seen}"
            self._console.print(line, highlight=False, soft_wrap=True)
