"""`foretrace noise`: what the learners' gradients are worth on the networks of a run."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import tyro

from foretrace import plotting, rl
from foretrace._checks import UserError, check_positive_int, checked_path
from foretrace.cli import _job, train
from foretrace.cli import rl as live
from foretrace.cli._format import split_task
from foretrace.cli._parse import parse
from foretrace.cli._tasks import options_for, problem_of
from foretrace.experiments import measure_noise, streams_of
from foretrace.runs import checkpoint
from foretrace.runs._config import read_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Measure learners on the networks that a run has trained, along the streams that they read.

    Their parameters are frozen. Each gradient is compared with the exact one: relative variance, bias and
    cosine, beside microseconds per step and bytes. Writes noise.png, and noise.html for a browser, to the
    run folder; for an agent one of each for every network, such as noise-policy.png.

    Examples:
      foretrace noise runs/ok
      foretrace noise runs/ok --learners auto
      foretrace noise runs/ok --learners low_rank:4,low_rank:8,ok:8/16,kf_rtrl --draws 16
      foretrace noise runs/maze --learners low_rank:4,uoro,tbptt:10
    """

    run: tyro.conf.Positional[Path]
    """The folder of a run of foretrace train or rl."""
    learners: str = "low_rank:4,low_rank:8,ok:8/16+1,ok:8,kf_rtrl,uoro,tbptt:25"
    """Names of learners with commas between them; of the fastest block unless they name one. "auto" stands
    for a sweep over ranks and blocks of those with little noise."""
    steps: int = 400
    """Length of the streams."""
    streams: int = 2
    """Number of streams, from the first lanes of the run; of an agent, of lives."""
    draws: int = 8
    """Independent copies of every learner."""


class _Trained(NamedTuple):
    """The networks of a run, and what they read.

    Attributes:
        streams: of every network, by a name that files and headings take up; "" where there is but one.
        network: in words.
        step: at which the parameters were saved.
        lanes: when time and bytes are taken.
    """

    streams: dict[str, rl.Stream]
    network: str
    step: int
    lanes: int


def run(words: Sequence[str]) -> None:
    """Prints the table and draws the picture."""
    options = parse(Options, words, "foretrace noise")
    for name in ("steps", "streams", "draws"):
        check_positive_int(name, getattr(options, name), "leave it out for the default")
    command = (read_config(options.run) or {}).get("command")
    if not isinstance(command, list) or command[:1] not in (["train"], ["rl"]):
        raise UserError(
            f"run must be the folder of a run of foretrace train or rl; got {str(options.run)!r}; make one "
            "with foretrace train."
        )
    trained = (_of_training if command[0] == "train" else _of_agent)(options, command[1:])
    for name, stream in trained.streams.items():
        table = measure_noise(
            stream.cell,
            stream.params,
            stream.xs,
            stream.credits,
            [name.strip() for name in options.learners.split(",")],
            restarts=stream.restarts,
            draws=options.draws,
            lanes=trained.lanes,
        )
        network = f"{name} of {trained.network}" if name else trained.network
        lanes = f"{trained.lanes} lane{'' if trained.lanes == 1 else 's'}"
        print(f"{network}, parameters of step {trained.step:,}, {lanes}", "", table, sep="\n")
        file = options.run / (f"noise-{name}" if name else "noise")
        picture, page = file.with_suffix(".png"), file.with_suffix(".html")
        title = f"Noise and price: {network}, step {trained.step:,}"
        remedy = "give it room and permission"
        with checked_path("run", options.run, "a folder that can be written", remedy):
            table.draw(picture, title)
            plotting.write_page(table.page(title), page)
        print(picture, page, sep="\n")


def _of_training(options: Options, words: list[str]) -> _Trained:
    """The network of a run of `foretrace train`, and the streams of its lanes."""
    task, words = split_task(words, "foretrace train")
    trained = parse(options_for(train.Train, task, ""), words, f"foretrace train {task}")
    problem = problem_of(task, trained)
    trainer = _job.build_run(trained, train.named(trained), problem.task, problem.cell).trainer
    carry, step = _restored(options, jax.eval_shape(trainer.init, jax.random.key(0)))
    state, params = carry.streams.task, carry.params
    streams = jax.jit(lambda: streams_of(problem.cell, problem.task, params, state, options.steps))()
    arrays = jax.tree.map(lambda a: a[:, : options.streams], streams)
    stream = rl.Stream(problem.cell, params["cell"], *arrays)
    return _Trained({"": stream}, problem.network, step, trained.lanes)


def _of_agent(options: Options, words: list[str]) -> _Trained:
    """The networks of a run of `foretrace rl`, and what they read when the agent lives on."""
    name, words = live.split_world(words)
    lived = parse(live.options_for(name, live.Rl, ""), words, f"foretrace rl {name}")
    scene = live.scene_of(name, lived, lived.seed)
    saved, step = _restored(options, scene.state)
    discount = getattr(scene.world, "discount", live.GYM_DISCOUNT)

    def make(learner: Any, rule: Any) -> rl.Agent:
        return rl.build(lived, scene.world, discount, learner=learner, rule=rule)

    size = {"steps": options.steps, "lives": options.streams}
    if name.startswith(live.GYM):
        streams = rl.played_streams(make, live.gymnasium_env(name), saved, seed=lived.seed, **size)
    else:
        key = jax.random.key(lived.seed)
        streams = rl.streams_of(make, scene.world, saved.agent, key=key, **size)
    network = f"{lived.agent} in {name}, {lived.cell} of {lived.hidden} units"
    return _Trained(streams, network, step, 1)


def _restored(options: Options, like: Any) -> tuple[Any, int]:
    """All that continues, and its step, from the run's newest checkpoint."""
    folder = options.run / "checkpoints"
    if not checkpoint.steps(folder):
        raise UserError(
            f"run must hold a checkpoint; got {str(options.run)!r} without one; go on with it by foretrace "
            "resume."
        )
    saved = checkpoint.restore(folder, like)
    return saved.tree, saved.step
