"""`foretrace train`: one network, one learner."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
from rich.console import Console

from foretrace import plotting, training
from foretrace.cli import _show
from foretrace.cli._parse import parse


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainCopy(training.Settings):
    """Train a network on the copy task, online.

    Writes config.json, metrics.jsonl (a line per chunk) and curve.png to the run folder.

    Examples:
      foretrace train copy
      foretrace train copy --learner ok --rank 16 --hidden 128 --steps 100000 --out runs/big
      foretrace train copy --learner tbptt:5 --out runs/tbptt
    """

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
    train(parse(TrainCopy, words, f"foretrace train {task}"))


def train(options: TrainCopy) -> None:
    """Trains one learner and leaves a run folder."""
    job = training.job(options, options.learner, rank=options.rank, window=options.window)
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"seed must be an int from 0 to 2**32 - 1; got {options.seed}; use 0.")
    training.create_folder(options.out, _show.config(options, learner=job.label, **job.settings))
    console = Console()
    _show.say(console, *_show.plan(options, job), f"seed {options.seed}, run folder {options.out}")
    records = []
    with training.Reporter(console, job.label, job.steps) as reporter:
        for record in training.run(job.trainer, jax.random.key(options.seed), job.chunks):
            records.append(record)
            training.append_json(options.out / "metrics.jsonl", record)
            reporter.show(record)
    title = f"Copy task: {options.cell} with {options.hidden} units, {job.label}"
    plotting.plot_run(records, title, options.out / "curve.png")
    last = records[-1]
    _show.say(
        console,
        f"{job.label} reached T = {last['T']} in {job.steps:,} steps: "
        f"{_show.late(records, 'bits'):.3f} bits per character, "
        f"{job.steps / last['seconds']:,.0f} steps/s, {last['seconds']:.0f} s",
        f"{options.out}: config.json, metrics.jsonl, curve.png",
    )
