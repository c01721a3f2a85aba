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

from foretrace import plotting, training
from foretrace.cli import _show
from foretrace.cli._parse import parse


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareCopy(training.Settings):
    """Compare learners on the copy task, with several seeds side by side.

    Writes config.json, metrics.jsonl, results.json and comparison.png to the folder.

    Examples:
      foretrace compare copy --learner ok:8 --learner kf_rtrl --learner uoro --learner tbptt:5
      foretrace compare copy --learner rtrl --learner ok:16 --steps 20000 --seeds 5 --out runs/cmp
    """

    learner: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """One of ok, kf_rtrl, uoro, rtrl, tbptt; ok:16 and tbptt:5 set rank and window. Repeat it.
    Unless given: ok:8, kf_rtrl, uoro and tbptt:5."""
    seeds: int = 3
    """Number of seeds, trained side by side."""
    out: Path = Path("runs/compare")
    """Folder, created; it must not hold a run yet."""


def run(words: Sequence[str]) -> None:
    """Runs the command with the words typed after it."""
    task, words = _show.the_task(words, "foretrace compare")
    compare(parse(CompareCopy, words, f"foretrace compare {task}"))


def compare(options: CompareCopy) -> None:
    """Trains several learners and leaves a folder with a table and a picture."""
    if not 1 <= options.seeds <= 1000:
        raise ValueError(f"seeds must be an int from 1 to 1000; got {options.seeds}; use 3.")
    texts = options.learner or ("ok:8", "kf_rtrl", "uoro", "tbptt:5")
    jobs = [training.job(options, text) for text in dict.fromkeys(texts)]
    settings = {job.label: job.settings for job in jobs}
    training.create_folder(options.out, _show.config(options, learner=settings))
    console = Console()
    for line in dict.fromkeys(line for job in jobs for line in _show.plan(options, job)):
        _show.say(console, line)
    results, curves = {}, {}
    for job in jobs:
        results[job.label], curves[job.label] = _compete(console, options, job)
    training.write_json(options.out / "results.json", results)
    title = f"Copy task: {options.cell} with {options.hidden} units, {options.seeds} seeds"
    plotting.plot_comparison(curves, title, options.out / "comparison.png")
    console.print(_table(results))
    _show.say(console, f"{options.out}: config.json, metrics.jsonl, results.json, comparison.png")


def _compete(console: Console, options: CompareCopy, job: training.Job) -> tuple[dict, tuple]:
    """Trains all seeds of one learner side by side: its results, and steps and T of its curve."""
    keys = jax.vmap(jax.random.key)(np.arange(options.seeds, dtype=np.uint32))
    records = []
    with training.Reporter(console, job.label.ljust(8), job.steps) as reporter:
        for record in training.run(job.trainer, keys, job.chunks):
            records.append(record)
            training.append_json(options.out / "metrics.jsonl", {"learner": job.label} | record)
            reporter.show(record)
    results = {
        "T": records[-1]["T"],
        "bits": _show.late(records, "bits").tolist(),
        "steps": job.steps,
        "steps_per_second": round(job.steps * options.seeds / records[-1]["seconds"]),
        "bytes": job.cost.bytes,
        "operations": job.cost.operations,
    }
    heights = [[1] * options.seeds, *(record["T"] for record in records)]
    return results, ([0, *(record["step"] for record in records)], np.transpose(heights))


def _table(results: dict[str, Any]) -> Table:
    """Mean and spread over seeds of every learner."""
    table = Table("learner", title="mean and standard deviation over seeds", title_justify="left")
    for column in ("T", "bits per character", "steps/s, all seeds", "memory", "per step"):
        table.add_column(column, justify="right")
    for label, found in results.items():
        table.add_row(
            label,
            f"{np.mean(found['T']):.1f} ± {np.std(found['T']):.1f}",
            f"{np.mean(found['bits']):.3f} ± {np.std(found['bits']):.3f}",
            f"{found['steps_per_second']:,}",
            f"{_show.amount(found['bytes'])}B",
            f"{_show.amount(found['operations'])}FLOP",
        )
    return table
