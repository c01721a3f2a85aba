"""`foretrace compare`: several learners, several seeds."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from foretrace import plotting, runs, training
from foretrace._checks import UserError
from foretrace.cli import _job, _show
from foretrace.cli._parse import parse
from foretrace.cli._tasks import Problem, options_for


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare:
    """Writes config.json, metrics.jsonl, results.json and comparison.png to the folder."""

    learner: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """One of those that `foretrace learners` lists; ok:16 and tbptt:5 set rank and window. Repeat it.
    Unless given: ok:8, kf_rtrl, uoro and tbptt:5."""
    seeds: int = 3
    """Number of seeds, trained side by side."""
    out: Path = Path("runs/compare")
    """Folder, created; it must not hold a run yet."""


def run(words: Sequence[str]) -> None:
    """Runs the command with the words typed after it."""
    task, words = _show.the_task(words, "foretrace compare")
    options = options_for(Compare, task, "Compare learners, with several seeds side by side, on")
    compare(task, parse(options, words, f"foretrace compare {task}"))


def compare(task: str, options: Any) -> None:
    """Trains several learners and leaves a folder with a table and a picture."""
    if not 1 <= options.seeds <= 1000:
        raise UserError(f"seeds must be an int from 1 to 1000; got {options.seeds}; use 3.")
    texts = options.learner or ("ok:8", "kf_rtrl", "uoro", "tbptt:5")
    problem = options.problem()
    jobs = [_job.job(options, text, problem.task, problem.cell) for text in dict.fromkeys(texts)]
    settings = {job.label: job.settings for job in jobs}
    runs.create_folder(options.out, _show.config(options, task=task, learner=settings))
    console = Console()
    plans = [line for job in jobs for line in _show.plan(task, options, problem, job)]
    _show.say(console, *dict.fromkeys(plans))
    results, curves = {}, {}
    for job in jobs:
        results[job.label], curves[job.label] = _compete(console, options, problem, job)
    runs.write_json(options.out / "results.json", results)
    title = f"{task.capitalize()}: {problem.network}, {options.seeds} seeds"
    plotting.plot_comparison(curves, title, problem.shown, problem.goal, options.out / "comparison.png")
    console.print(_table(problem, results))
    _show.say(console, f"{options.out}: config.json, metrics.jsonl, results.json, comparison.png")


def _compete(console: Console, options: Any, problem: Problem, job: _job.Job) -> tuple[dict, tuple]:
    """Trains all seeds of one learner side by side: its results, and steps and values of its curve."""
    keys = jax.vmap(jax.random.key)(np.arange(options.seeds, dtype=np.uint32))
    records = []
    loss, shown = problem.task.loss, problem.shown
    with runs.Reporter(console, job.label.ljust(8), job.steps, loss) as reporter:
        for record in training.run(job.trainer, keys, job.chunks, problem.measures):
            records.append(record)
            runs.append_json(options.out / "metrics.jsonl", {"learner": job.label} | record)
            reporter.show(record)
    ends = {shown: records[-1][shown]} | {m.name: records[-1][m.name] for m in problem.measures}
    results = {
        **ends,
        loss.name: _show.late(records, loss.name).tolist(),
        "steps": job.steps,
        "steps_per_second": round(job.steps * options.seeds / max(records[-1]["seconds"], 1e-9)),
        "bytes": job.cost.bytes,
        "operations": job.cost.operations,
    }
    seen = [(record["step"], record[shown]) for record in records if shown in record]
    if shown == "T":
        seen.insert(0, (0, [1] * options.seeds))
    steps, values = zip(*seen, strict=True)
    return results, (steps, np.transpose(values))


def _table(problem: Problem, results: dict[str, Any]) -> Table:
    """Mean and spread over seeds of every learner."""
    names = dict.fromkeys([problem.shown, *(m.name for m in problem.measures), problem.task.loss.name])
    table = Table("learner", title="mean and standard deviation over seeds", title_justify="left")
    for column in (*map(_show.words, names), "steps/s, all seeds", "memory", "per step"):
        table.add_column(column, justify="right")
    for label, found in results.items():
        table.add_row(
            label,
            *(_spread(name, found[name]) for name in names),
            f"{found['steps_per_second']:,}",
            f"{_show.amount(found['bytes'])}B",
            _show.flop(found["operations"]),
        )
    return table


def _spread(name: str, values: Any) -> str:
    """Mean and standard deviation; what is not a length may be tiny, or beyond all bounds."""
    mean, spread = np.mean(values), np.std(values)
    return f"{mean:.1f} ± {spread:.1f}" if name == "T" else f"{mean:.4g} ± {spread:.2g}"
