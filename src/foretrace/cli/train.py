"""`foretrace train`: one network, one learner."""

import contextlib
import dataclasses
import hashlib
import re
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
from rich.console import Console

from foretrace import learners, plotting, scale, training
from foretrace._checks import UserError
from foretrace.cli import _format, _job
from foretrace.cli._parse import parse
from foretrace.cli._tasks import Problem, options_for, problem_of
from foretrace.runs import _together
from foretrace.runs._config import versions
from foretrace.runs._folder import RunFolder, SaveInterval, open_run
from foretrace.runs._progress import Reporter
from foretrace.runs._signals import StopSignal
from foretrace.runs._writers import TensorBoard, scalars
from foretrace.scale import _processes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Writes config.json, metrics.jsonl, curve.png, report.html and checkpoints to the run folder.

    metrics.jsonl has a line per chunk, report.html is the curve as a page for a browser.
    """

    learner: str = "ok"
    """One of those that `foretrace learners` lists; ok:16 and tbptt:5 set rank and window."""
    rank: _job.OptionalInt = None
    """The learner's rank, if its name has none: --rank 16 makes ok the same as ok:16."""
    window: _job.OptionalInt = None
    """Likewise the window of tbptt."""
    seed: int = 0
    """Seed of everything random."""
    out: Path | None = None
    """Run folder, created; without --resume it must not hold a run yet. runs/TASK-LEARNER unless given."""
    checkpoint_every: str = "10m"
    """How often all that continues is saved: every so many steps, as 100000, or minutes, as 10m."""
    resume: bool = False
    """Go on with the run in --out, bit for bit as if it had not been stopped; begin it if there is none."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """At numbers that are not finite: stop with everything saved, or skip the sample."""
    mesh: str | None = None
    """Devices to divide the run over, as lanes=2,units=4: streams, and columns of the weights."""
    coordinator: str | None = None
    """Of a job of many processes, each started with these words: HOST:PORT where process 0 listens, or
    auto, as Slurm, Open MPI or Kubernetes tell it. The mesh is then lanes=N of all devices unless given."""
    processes: _job.OptionalInt = None
    """How many processes the job has."""
    process: _job.OptionalInt = None
    """Which of them this one is, from 0; that one writes the run folder, which all must see."""
    coordinator_timeout: int = 60
    """Seconds to wait for the others."""
    tensorboard: bool = False
    """Write the metrics to --out for TensorBoard too (needs the extra foretrace[tensorboard])."""


def run(words: Sequence[str]) -> int:
    """Runs the command with the words typed after it."""
    task, words = _format.split_task(words, "foretrace train")
    options = options_for(Train, task, "Train a network online on")
    return train(task, parse(options, words, f"foretrace train {task}"), words)


def train(task: str, options: Any, words: Sequence[str]) -> int:
    """Trains one learner and leaves a run folder; the exit code says whether a signal stopped it."""
    _processes.join(options.coordinator, options.processes, options.process, options.coordinator_timeout)
    with _processes.ends_with_the_others():
        return _train(task, options, words)


def _train(task: str, options: Any, words: Sequence[str]) -> int:
    """Trains, in every process of a job; the first one writes and speaks."""
    problem = problem_of(task, options)
    sizes = scale.parse_mesh(options.mesh) if options.mesh else {"lanes": jax.device_count()}
    mesh = scale.mesh(**sizes) if options.mesh or _together.count() > 1 else None
    run = _job.build_run(options, named(options), problem.task, problem.cell, mesh)
    if options.out is None:
        name = re.sub(
            r"[^\w.]", "-", f"{task}-{run.label}"
        )  # a file name everywhere, and a word in any shell
        options = dataclasses.replace(options, out=Path("runs", name))
    if not 0 <= options.seed < 2**32:
        raise UserError(f"seed must be an int from 0 to 2**32 - 1; got {options.seed}; use 0.")
    interval = SaveInterval.parse(options.checkpoint_every)
    resolved = {"task": task, "learner": run.label, **run.settings, "data": data_of(options)}
    config = _format.config(options, **resolved, command=["train", task, *words])
    if mesh is not None:
        text = ",".join(f"{name}={size}" for name, size in mesh.shape.items())
        config["versions"] = versions() | {"mesh": text, "processes": str(_together.count())}
    _processes.agree(config)
    _processes.check_shared(options.out)
    first = _together.is_first()
    board = TensorBoard(options.out) if options.tensorboard and first else None
    console = Console(quiet=not first)
    key, loss = jax.random.key(options.seed), problem.task.loss
    watch = training.CheckedChunk(run.trainer, run.guarded_chunk, skip=options.on_nonfinite == "skip")
    with (
        _format.warnings_in_one_line(),
        open_run(options.out, config, interval, resume=options.resume) as folder,
        StopSignal() as stop,
        contextlib.closing(board) if board else contextlib.nullcontext(),
    ):
        plan = _format.plan(task, options, problem, run)
        like = run.like(key)
        if mesh is not None:
            plan.append(scale.spread_of(like, mesh))
        _format.say(console, *plan, f"seed {options.seed}, run folder {options.out}")
        start = folder.restore(like)
        if start:
            _format.say(console, f"goes on from step {start[1]['step']:,}")
        with Reporter(console, run.label, run.steps, problem.task) as reporter:
            chunks = training.advance(run.trainer, key, run.chunks, start=start, watch=watch)
            for record in folder.record(chunks, stop, loss.name):
                reporter.show(record)
                if board:
                    board.write(record["step"], scalars(record))
        if stop.signal is not None or folder.stopped:
            again = f"foretrace resume {shlex.quote(str(options.out))}"
            if _together.count() > 1:
                again = "the same words and --resume, in every process"
            _format.say(console, f"stopped at step {folder.saved:,}; go on with: {again}")
            return 128 + (stop.signal or signal.SIGTERM)
        if first:
            _finish(console, task, problem, run, folder)
    return 0


def named(options: Any) -> str:
    """The learner's name with the number that `--rank` or `--window` gives it.

    Raises:
        UserError: it has no such number, or another one already.
    """
    choice = learners.parse(options.learner)
    for keyword in ("rank", "window"):
        value = getattr(options, keyword)
        if value is None:
            continue
        if choice.spec.number is None or choice.spec.number.keyword != keyword:
            raise UserError(f"--{keyword} must be left out for {choice.spec.name}; got {value}; drop it.")
        if ":" in options.learner and value != choice.number:
            raise UserError(
                f"--{keyword} must be given once; got {options.learner!r} and {value}; drop one."
            )
        choice = choice._replace(number=value)
    return options.learner if options.rank is options.window is None else str(choice)


def title_of(task: str, problem: Problem, label: str) -> str:
    """The run in words, above its picture and its page."""
    return f"{task.capitalize()}: {label} trains {problem.network}"


def _finish(console: Console, task: str, problem: Problem, run: _job.Run, folder: RunFolder) -> None:
    """Draws the curve, and says where the run arrived."""
    records = folder.records()
    title = title_of(task, problem, run.label)
    plotting.plot_run(records, problem.task, title, folder.path / "curve.png")
    page = plotting.charts_page(plotting.run_charts(records, problem.task), title)
    plotting.write_page(page, folder.path / "report.html")
    last = records[-1]
    speed = run.steps / max(last["seconds"], 1e-9)
    _format.say(
        console,
        f"{run.label}, {run.steps:,} steps: {_format.summary(problem, records)}, {speed:,.0f} steps/s, "
        f"{last['seconds']:.0f} s",
        f"{folder.path}: config.json, metrics.jsonl, curve.png, report.html, checkpoints",
    )
    skipped = sum(record.get("skipped", 0) for record in records)
    if skipped:
        _format.say(console, f"{skipped:,} samples and updates were not finite and skipped")


def data_of(options: Any) -> dict[str, str]:
    """The checksums of the files that are read; it does not matter where they are."""
    files = {name: getattr(options, name, None) for name in ("file", "valid", "test")}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if path}
