"""`foretrace train`: one network, one learner."""

import contextlib
import dataclasses
import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
from rich.console import Console

from foretrace import plotting, runs, training
from foretrace._checks import UserError
from foretrace.cli import _job, _show
from foretrace.cli._parse import parse
from foretrace.cli._tasks import Problem, options_for


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Writes config.json, metrics.jsonl (a line per chunk), curve.png and checkpoints to the run folder."""

    learner: str = "ok"
    """One of those that `foretrace learners` lists; ok:16 and tbptt:5 set rank and window."""
    rank: _job.Optional = None
    """Number of Kronecker products that ok keeps; 8 unless given."""
    window: _job.Optional = None
    """Window of tbptt; 25 unless given."""
    seed: int = 0
    """Seed of everything random."""
    out: Path = Path("runs/ok")
    """Run folder, created; without --resume it must not hold a run yet."""
    checkpoint_every: str = "10m"
    """How often all that continues is saved: every so many steps, as 100000, or minutes, as 10m."""
    resume: bool = False
    """Go on with the run in --out, bit for bit as if it had not been stopped; begin it if there is none."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What to do about numbers that are not finite: stop with everything saved, or skip the sample."""
    tensorboard: bool = False
    """Write the metrics to --out for TensorBoard too (needs the extra foretrace[tensorboard])."""
    wandb: bool = False
    """Log the metrics to Weights & Biases too (needs the package wandb)."""


def run(words: Sequence[str]) -> int:
    """Runs the command with the words typed after it."""
    task, words = _show.the_task(words, "foretrace train")
    options = options_for(Train, task, "Train a network online on")
    return train(task, parse(options, words, f"foretrace train {task}"), words)


def train(task: str, options: Any, words: Sequence[str]) -> int:
    """Trains one learner and leaves a run folder; the exit code says whether a signal stopped it."""
    problem = options.problem()
    job = _job.job(
        options, options.learner, problem.task, problem.cell, rank=options.rank, window=options.window
    )
    if not 0 <= options.seed < 2**32:
        raise UserError(f"seed must be an int from 0 to 2**32 - 1; got {options.seed}; use 0.")
    rhythm = runs.Rhythm.parse(options.checkpoint_every)
    resolved = {"task": task, "learner": job.label, **job.settings, "data": data_of(options)}
    command = {"command": ["train", task, *words], "versions": runs.versions()}
    config = _show.config(options, **resolved, **command)
    writers = _writers(options, config)
    console = Console()
    plan = _show.plan(task, options, problem, job)
    key, loss = jax.random.key(options.seed), problem.task.loss
    watch = training.Watch(job.trainer, job.guarded, skip=options.on_nonfinite == "skip")
    with (
        _show.warnings_in_one_line(),
        runs.claim(options.out, config, rhythm, resume=options.resume) as folder,
        runs.Stop() as stop,
        contextlib.ExitStack() as closing,
    ):
        for writer in writers:
            closing.callback(writer.close)
        _show.say(console, *plan, f"seed {options.seed}, run folder {options.out}")
        start = folder.restore(jax.eval_shape(job.trainer.init, key))
        if start:
            _show.say(console, f"goes on from step {start[1]['step']:,}")
        with runs.Reporter(console, job.label, job.steps, loss) as reporter:
            chunks = training.advance(
                job.trainer, key, job.chunks, problem.measures, start=start, watch=watch
            )
            for record in folder.follow(chunks, stop, loss.name):
                reporter.show(record)
                for writer in writers:
                    writer.write(record["step"], runs.scalars(record))
        if stop.signal is not None:
            again = f"foretrace resume {shlex.quote(str(options.out))}"
            _show.say(console, f"stopped at step {folder.saved:,}; go on with: {again}")
            return 128 + stop.signal
        _finish(console, task, options, problem, job, folder)
    return 0


def _finish(
    console: Console,
    task: str,
    options: Any,
    problem: Problem,
    job: _job.Job,
    folder: runs.RunFolder,
) -> None:
    """Draws the curve, and says where the run arrived."""
    records = folder.records()
    title = f"{task.capitalize()}: {job.label} trains {problem.network}"
    plotting.plot_run(records, title, problem.task.loss.name, problem.goal, options.out / "curve.png")
    last = records[-1]
    speed = job.steps / max(last["seconds"], 1e-9)
    _show.say(
        console,
        f"{job.label}, {job.steps:,} steps: {_show.reached(problem, records)}, {speed:,.0f} steps/s, "
        f"{last['seconds']:.0f} s",
        f"{options.out}: config.json, metrics.jsonl, curve.png, checkpoints",
    )
    skipped = sum(record.get("skipped", 0) for record in records)
    if skipped:
        _show.say(console, f"{skipped:,} samples and updates were not finite and skipped")


def _writers(options: Any, config: dict[str, Any]) -> Sequence[runs.Writer]:
    """Where else the metrics go."""
    board = [runs.TensorBoard(options.out)] if options.tensorboard else []
    return board + ([runs.WeightsAndBiases(options.out, config)] if options.wandb else [])


def data_of(options: Any) -> dict[str, str]:
    """The checksums of the files that are read; it does not matter where they are."""
    files = {name: getattr(options, name, None) for name in ("file", "valid", "test")}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if path}
