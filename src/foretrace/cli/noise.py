"""`foretrace noise`: what the learners' gradients are worth on the network of a run."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import tyro

from foretrace import plotting
from foretrace._checks import UserError, check_positive_int, checked_path
from foretrace.cli import _job, train
from foretrace.cli._format import split_task
from foretrace.cli._parse import parse
from foretrace.cli._tasks import options_for, problem_of
from foretrace.experiments import measure_noise, streams_of
from foretrace.runs import checkpoint
from foretrace.runs._config import read_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measure learners on the network that a run has trained, along the streams that it reads.

    Its parameters are frozen. Each gradient is compared with the exact one: relative variance, bias and
    cosine, beside microseconds per step and bytes. Writes noise.png, and noise.html for a browser, to the
    run folder.

    Examples:
      foretrace noise runs/ok
      foretrace noise runs/ok --learners low_rank:4,low_rank:8,ok:8/16,kf_rtrl --draws 16
    """

    run: tyro.conf.Positional[Path]
    """The folder of a run of foretrace train."""
    learners: str = "low_rank:4,low_rank:8,ok:8,kf_rtrl,uoro,tbptt:25"
    """Names of learners with commas between them; of the fastest block unless they name one."""
    steps: int = 400
    """Length of the streams."""
    streams: int = 2
    """Number of streams, from the first lanes of the run."""
    draws: int = 8
    """Independent copies of every learner."""


def run(words: Sequence[str]) -> None:
    """Prints the table and draws the picture."""
    options = parse(Options, words, "foretrace noise")
    for name in ("steps", "streams", "draws"):
        check_positive_int(name, getattr(options, name), "leave it out for the default")
    problem, carry, lanes, step = _trained(options)
    state, params = carry.streams.task, carry.params
    streams = jax.jit(lambda: streams_of(problem.cell, problem.task, params, state, options.steps))()
    xs, credits, restarts = jax.tree.map(lambda a: a[:, : options.streams], streams)
    table = measure_noise(
        problem.cell,
        params["cell"],
        xs,
        credits,
        [name.strip() for name in options.learners.split(",")],
        restarts=restarts,
        draws=options.draws,
        lanes=lanes,
    )
    print(f"{problem.network}, parameters of step {step:,}, {lanes} lanes", "", table, sep="\n")
    picture, page = options.run / "noise.png", options.run / "noise.html"
    title = f"Noise and price: {problem.network}, step {step:,}"
    with checked_path("run", options.run, "a folder that can be written", "give it room and permission"):
        table.draw(picture, title)
        plotting.write_page(table.page(title), page)
    print(picture, page, sep="\n")


def _trained(options: Options) -> tuple[Any, Any, int, int]:
    """Problem, carry, lanes and step of the run."""
    config = read_config(options.run)
    command = (config or {}).get("command")
    if not isinstance(command, list) or command[:1] != ["train"]:
        raise UserError(
            f"run must be the folder of a run of foretrace train; got {str(options.run)!r}; make one with "
            "foretrace train."
        )
    task, words = split_task(command[1:], "foretrace train")
    trained = parse(options_for(train.Train, task, ""), words, f"foretrace train {task}")
    problem = problem_of(task, trained)
    trainer = _job.build_run(trained, train.named(trained), problem.task, problem.cell).trainer
    like = jax.eval_shape(trainer.init, jax.random.key(0))
    folder = options.run / "checkpoints"
    if not checkpoint.steps(folder):
        raise UserError(
            f"run must hold a checkpoint; got {str(options.run)!r} without one; go on with it by foretrace "
            "resume."
        )
    saved = checkpoint.restore(folder, like)
    return problem, saved.tree, trained.lanes, saved.step
