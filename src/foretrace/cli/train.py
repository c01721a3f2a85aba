"""`foretrace train`: one network, one learner."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from foretrace import plotting, training
from foretrace.cli import _show
from foretrace.cli._parse import parse
from foretrace.cli._tasks import options_for


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Writes config.json, metrics.jsonl (a line per chunk) and curve.png to the run folder."""

    learner: str = "ok"
    """One of ok, kf_rtrl, uoro, rtrl, tbptt; ok:16 and tbptt:5 set rank and window."""
    rank: training.Optional = None
    """Number of Kronecker products that ok keeps; 8 unless given."""
    window: training.Optional = None
    """Window of tbptt; 25 unless given."""
    seed: int = 0
    """Seed of everything random."""
    out: Path = Path("runs/ok")
    """Run folder, created; it must not hold a run yet."""


def run(words: Sequence[str]) -> None:
    """Runs the command with the words typed after it."""
    task, words = _show.the_task(words, "foretrace train")
    options = options_for(Train, task, "Train a network online on")
    train(task, parse(options, words, f"foretrace train {task}"))


def train(task: str, options: Any) -> None:
    """Trains one learner and leaves a run folder."""
    problem = options.problem()
    job = training.job(
        options, options.learner, problem.task, problem.cell, rank=options.rank, window=options.window
    )
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"seed must be an int from 0 to 2**32 - 1; got {options.seed}; use 0.")
    config = _show.config(options, task=task, learner=job.label, **job.settings)
    training.create_folder(options.out, config)
    console = Console()
    plan = _show.plan(task, options, problem, job)
    _show.say(console, *plan, f"seed {options.seed}, run folder {options.out}")
    records = []
    with training.Reporter(console, job.label, job.steps, problem.task.loss) as reporter:
        key = jax.random.key(options.seed)
        for record in training.run(job.trainer, key, job.chunks, problem.measures):
            records.append(record)
            training.append_json(options.out / "metrics.jsonl", record)
            reporter.show(record)
    title = f"{task.capitalize()}: {job.label} trains {problem.network}"
    plotting.plot_run(records, title, problem.task.loss.name, problem.goal, options.out / "curve.png")
    last = records[-1]
    speed = job.steps / max(last["seconds"], 1e-9)
    _show.say(
        console,
        f"{job.label}, {job.steps:,} steps: {_show.reached(problem, records)}, {speed:,.0f} steps/s, "
        f"{last['seconds']:.0f} s",
        f"{options.out}: config.json, metrics.jsonl, curve.png",
    )
