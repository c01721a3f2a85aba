"""`foretrace compare`: several learners, several seeds."""

import contextlib
import dataclasses
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from foretrace import plotting, training
from foretrace._checks import UserError
from foretrace._xla import map_sequentially
from foretrace.cli import _format, _job, _lives, rl
from foretrace.cli._parse import parse
from foretrace.cli._tasks import Problem, options_for, problem_of
from foretrace.rl.environments import ENVIRONMENTS
from foretrace.runs._folder import RunFolder, SaveInterval, open_run, read_records, to_bytes
from foretrace.runs._progress import Reporter, TableOfParts
from foretrace.runs._signals import StopSignal
from foretrace.scale import _ray
from foretrace.tasks import Metric

_MEANS = "mean and standard deviation over seeds"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare:
    """Writes config.json, metrics.jsonl, results.json, comparison.png and report.html to the folder."""

    learner: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """One of those that `foretrace learners` lists; ok:16 and tbptt:5 set rank and window. Repeat it.
    Unless given: ok:8, kf_rtrl, uoro and tbptt:5."""
    seeds: int = 3
    """Number of seeds, trained side by side."""
    out: Path = Path("runs/compare")
    """Run folder, created; without --resume it must not hold a run yet."""
    resume: bool = False
    """Go on with the run in --out: finished learners stay, the others begin anew."""
    engine: str | None = None
    """ray, or ray://HOST:PORT of a cluster (extra foretrace[ray]): every learner and seed is a task of its
    own, in a folder under --out that all machines see; one that is killed goes on from its checkpoint."""
    checkpoint_every: str = "1m"
    """With --engine, how often each task is saved: every so many steps, as 100000, or minutes, as 1m."""


def run(words: Sequence[str]) -> None:
    """Runs the command with the words typed after it."""
    if words and (words[0] in ENVIRONMENTS or words[0].startswith(rl.GYM)):
        return _lives.run(words[0], words[1:])
    task, words = _format.split_task(words, "foretrace compare")
    options = options_for(Compare, task, "Compare learners, with several seeds side by side, on")
    compare(task, parse(options, words, f"foretrace compare {task}"), words)


def compare(task: str, options: Any, words: Sequence[str]) -> None:
    """Trains several learners and leaves a folder with a table and a picture."""
    if not 1 <= options.seeds <= 1000:
        raise UserError(f"seeds must be an int from 1 to 1000; got {options.seeds}; use 3.")
    _ray.check_engine(options.engine)
    SaveInterval.parse(options.checkpoint_every)
    problem = problem_of(task, options)
    entrants = entrants_of(options, problem)
    settings = {entrant.label: entrant.settings for entrant in entrants}
    config = _format.config(options, task=task, learner=settings, command=["compare", task, *words])
    console = Console()
    with (
        _ray.connected(options.engine, options.out) if options.engine else contextlib.nullcontext() as ray,
        open_run(options.out, config, resume=options.resume) as folder,
    ):
        plans = [line for entrant in entrants for line in _format.plan(task, options, problem, entrant)]
        _format.say(console, *dict.fromkeys(plans))
        if ray is None:
            curves = _train(console, options, problem, entrants, folder)
        else:
            curves = _train_on(ray, console, options, [task, *words], entrants, folder)
        results = {run.label: _results(problem, run, options.seeds, curves[run.label]) for run in entrants}
        (folder.path / "results.json").write_bytes(to_bytes(results))
        title = title_of(task, problem, options.seeds)
        lines = curves_of(problem, options.seeds, curves)
        plotting.plot_comparison(lines, problem.main, title, folder.path / "comparison.png")
        chart, ends = plotting.comparison_chart(lines, problem.main), table_of(problem, results)
        page = plotting.charts_page([chart], title, tables=[ends])
        plotting.write_page(page, folder.path / "report.html")
    console.print(_table(problem, results))
    files = "config.json, metrics.jsonl, results.json, comparison.png, report.html"
    _format.say(console, f"{options.out}: {files}")


def entrants_of(options: Any, problem: Problem) -> list[_job.Run]:
    """The learners that are compared."""
    texts = options.learner or ("ok:8", "kf_rtrl", "uoro", "tbptt:5")
    runs = (_job.build_run(options, text, problem.task, problem.cell) for text in dict.fromkeys(texts))
    # By label, since `ok` and `ok:8` are the same.
    return list({run.label: run for run in runs}.values())


def _train(
    console: Console, options: Any, problem: Problem, entrants: Sequence[_job.Run], folder: RunFolder
) -> dict[str, list[dict[str, Any]]]:
    """Trains all seeds of every learner side by side, but for learners that are done: their records."""
    old = folder.records()
    ends = {record["learner"]: record["step"] for record in old}
    finished = {run.label for run in entrants if ends.get(run.label) == run.steps}
    folder.rewrite([record for record in old if record["learner"] in finished])
    curves: dict[str, list[dict[str, Any]]] = {run.label: [] for run in entrants}
    for record in folder.records():
        curves[record["learner"]].append(record)
    keys = jax.vmap(jax.random.key)(np.arange(options.seeds, dtype=np.uint32))
    for entrant in entrants:
        records = curves[entrant.label]
        if entrant.label in finished:
            continue
        with Reporter(console, entrant.label.ljust(8), entrant.steps, problem.task) as reporter:
            for record in training.run(entrant.trainer, keys, entrant.chunks):
                records.append({"learner": entrant.label} | record)
                folder.append(records[-1])
                reporter.show(record)
    return curves


def _train_on(
    ray: Any,
    console: Console,
    options: Any,
    words: Sequence[str],
    entrants: Sequence[_job.Run],
    folder: RunFolder,
) -> dict[str, list[dict[str, Any]]]:
    """Trains every learner and seed as a task of Ray: the same records as `_train`."""
    parts = [
        _ray.Part(f"{run.label}, seed {seed}", part_folder(folder.path, run.label, seed), (words, i, seed))
        for i, run in enumerate(entrants)
        for seed in range(options.seeds)
    ]
    ends = [(part.name, entrants[part.arguments[1]].steps) for part in parts]
    with TableOfParts(console, ends, "steps") as table:
        _ray.run_parts(ray, train_part, parts, lambda part: table.show(part.name, _last_step(part.folder)))
    curves = {}
    for run in entrants:
        folders = (part_folder(folder.path, run.label, seed) for seed in range(options.seeds))
        seeds = [read_records(part / "metrics.jsonl") for part in folders]
        rows = map(side_by_side, zip(*seeds, strict=True))
        curves[run.label] = [{"learner": run.label} | row for row in rows]
    folder.rewrite([record for records in curves.values() for record in records])
    return curves


def part_folder(out: Path, label: str, seed: int) -> Path:
    """Where a task of Ray keeps one learner with one seed."""
    return out / "parts" / f"{re.sub(r'[^A-Za-z0-9_.]', '-', label)}-seed{seed}"


def train_part(folder: Path, words: Sequence[str], number: int, seed: int) -> None:
    """Trains one learner with one seed, in a process of its own; goes on with what is in the folder.

    Args:
        folder: of this part of the comparison.
        words: typed after `foretrace compare`.
        number: of the learner among those of the comparison.
        seed: the seed.
    """
    task, *rest = words
    options: Any = parse(options_for(Compare, task, ""), rest, "foretrace compare")
    problem = problem_of(task, options)
    run = entrants_of(options, problem)[number]
    config = _format.config(options, task=task, learner=run.label, seed=seed, **run.settings)
    keys = jax.vmap(jax.random.key)(np.array([seed], np.uint32))
    with open_run(folder, config, SaveInterval.parse(options.checkpoint_every), resume=True) as part:
        start = part.restore(jax.eval_shape(partial(map_sequentially, run.trainer.init), keys))
        chunks = training.advance(run.trainer, keys, run.chunks, start=start)
        for _ in part.record(chunks, StopSignal(), problem.task.loss.name):
            pass


def side_by_side(records: Sequence[Any]) -> Any:
    """The records of single seeds as that of all of them, whose values are lists with one entry a seed."""
    first = records[0]
    if isinstance(first, dict):
        return {name: side_by_side([record[name] for record in records]) for name in first}
    if isinstance(first, list):
        return [entry for record in records for entry in record]
    return max(records)  # the step, which all have in common, and the seconds


def _last_step(folder: Path) -> int:
    """How far a part is, by the last whole line of its metrics."""
    try:
        records = read_records(folder / "metrics.jsonl")
    except (OSError, ValueError):
        return 0
    return records[-1]["step"] if records else 0


def _results(problem: Problem, run: _job.Run, seeds: int, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Final metrics of every seed of a learner, and its costs."""
    loss = problem.task.loss.name
    return {
        **{metric.name: records[-1][metric.name] for metric in problem.task.shown},
        loss: _format.tail_mean(records, loss).tolist(),
        "steps": run.steps,
        "steps_per_second": round(run.steps * seeds / max(records[-1]["seconds"], 1e-9)),
        "bytes": run.cost.bytes,
        "operations": run.cost.operations,
    }


def title_of(task: str, problem: Problem, seeds: int) -> str:
    """The comparison in words, above its picture and its page."""
    return f"{task.capitalize()}: {problem.network}, {seeds} seeds"


def curves_of(
    problem: Problem, seeds: int, records: dict[str, list[dict[str, Any]]]
) -> dict[str, tuple[Any, np.ndarray]]:
    """For each learner with a record steps, and the main metric of every seed at them."""
    name, start = problem.main.name, problem.main.start
    curves = {}
    for label, own in records.items():
        points = [(record["step"], record[name]) for record in own if name in record]
        if points:
            first = [] if start is None else [(0, [start] * seeds)]
            steps, values = zip(*first, *points, strict=True)
            curves[label] = (steps, np.transpose(values))
    return curves


def _table(problem: Problem, results: dict[str, Any]) -> Table:
    """Mean and spread over seeds of every learner, for a terminal."""
    heading, rows = _entries(problem, results)
    table = Table(heading[0], title=_MEANS, title_justify="left")
    for name in heading[1:]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(entry if isinstance(entry, str) else entry.text for entry in row))
    return table


def table_of(problem: Problem, results: dict[str, Any]) -> plotting.Table:
    """The same for a page."""
    return plotting.Table("Where they arrived", _MEANS.capitalize() + ".", *_entries(problem, results))


def _entries(
    problem: Problem, results: dict[str, Any]
) -> tuple[list[str], list[list[str | plotting.Entry]]]:
    """The heading, and a row for every learner."""
    metrics = {m.name: m for m in (problem.main, *problem.task.shown, problem.task.loss_metric)}.values()
    heading = ["learner", *(metric.label for metric in metrics), "steps/s, all seeds", "memory", "per step"]
    rows: list[list[str | plotting.Entry]] = [
        [
            label,
            *(plotting.Entry(_spread(m, ends[m.name]), float(np.mean(ends[m.name]))) for m in metrics),
            plotting.Entry(f"{ends['steps_per_second']:,}", ends["steps_per_second"]),
            plotting.Entry(f"{_format.amount(ends['bytes'])}B", ends["bytes"]),
            plotting.Entry(_format.flop(ends["operations"]), ends["operations"]),
        ]
        for label, ends in results.items()
    ]
    return heading, rows


def _spread(metric: Metric, values: Any) -> str:
    """Mean and standard deviation; a number that is no level may be tiny, or beyond all bounds."""
    mean, spread = np.mean(values), np.std(values)
    return f"{mean:.1f} ± {spread:.1f}" if metric.start is not None else f"{mean:.4g} ± {spread:.2g}"
