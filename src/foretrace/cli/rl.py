"""`foretrace rl`: an agent with a memory, in a world where it learns at every step."""

import dataclasses
import inspect
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import docstring_parser
import jax
import tyro
from rich.console import Console

from foretrace import plotting, rl
from foretrace._checks import UserError, check_positive_int, import_extra
from foretrace.cli import _format
from foretrace.cli._parse import parse
from foretrace.rl._play import Playing, play
from foretrace.rl.environments import ENVIRONMENTS, Environment
from foretrace.runs._folder import RunFolder, SaveInterval, open_run
from foretrace.runs._progress import Reporter
from foretrace.runs._signals import StopSignal
from foretrace.tasks._task import Measured

GYM = "gym:"  # before the name of a world of Gymnasium
GYM_DISCOUNT = 0.99  # Gymnasium names none


@dataclasses.dataclass(frozen=True, kw_only=True)
class Life(rl.Setting):
    """Options of every life."""

    steps: int = 1_000_000
    """Calls of the agent, rounded up to whole chunks; an episode of n steps takes n + 1."""
    chunk: int = 10_000
    """About how many of them lie between two lines of metrics."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """At numbers that are not finite: stop with everything saved, or begin another episode."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rl(Life):
    """Writes config.json, metrics.jsonl (a line per chunk), curve.png and checkpoints to the run folder."""

    seed: int = 0
    """Seed of everything random."""
    out: Path | None = None
    """Run folder, created; without --resume it must not hold a run yet. runs/WORLD-LEARNER unless given."""
    checkpoint_every: str = "10m"
    """How often all that continues is saved: every so many steps, as 100000, or minutes, as 10m."""
    resume: bool = False
    """Go on with the run in --out, bit for bit as if it had not been stopped; begin it if there is none."""


class Scene(NamedTuple):
    """A world and an agent, ready to live.

    Attributes:
        world: observations and actions.
        agent: the agent.
        steps: calls of the agent in all.
        measured: names of what the records show.
        state: everything that continues, as shapes.
        lives: `(start) -> states and records`.
    """

    world: Any
    agent: rl.Agent
    steps: int
    measured: Measured
    state: Any
    lives: Any


def run(words: Sequence[str]) -> int:
    """Runs the command with the words typed after it."""
    name, rest = split_world(words)
    purpose = "Let an agent with a memory learn at every step in"
    options = parse(options_for(name, Rl, purpose), rest, f"foretrace rl {name}")
    return _live(name, options, words)


def options_for(name: str, command: type, purpose: str) -> Any:
    """The options of a command in a world, as one dataclass whose docstring is the help text."""
    fields, defaults, what, examples = [], {}, f"{name} of Gymnasium.", ("",)
    if not name.startswith(GYM):
        spec = ENVIRONMENTS[name]
        defaults, what, examples = spec.defaults, spec.purpose, spec.examples
        texts = {p.arg_name: p.description for p in docstring_parser.parse(spec.make.__doc__ or "").params}
        for option in inspect.signature(spec.make).parameters.values():
            text = texts.get(option.name) or ""
            hint = Annotated[option.annotation, tyro.conf.arg(help=text[:1].upper() + text[1:])]
            fields.append((option.name, hint, option.default))
    hints = {field.name: field.type for field in dataclasses.fields(command)}
    fields += [(option, hints[option], value) for option, value in defaults.items()]
    typed = f"  foretrace {command.__name__.lower()} {name} "
    shown = "\n".join((typed + words).rstrip() for words in examples)
    text = "\n\n".join((f"{purpose} {what}", command.__doc__ or "", f"Examples:\n{shown}\n"))
    return dataclasses.make_dataclass(
        command.__name__, fields, bases=(command,), namespace={"__doc__": text}, frozen=True, kw_only=True
    )


def split_world(words: Sequence[str]) -> tuple[str, list[str]]:
    """The world that was typed, and the words after it; `--help` alone shows the options of the T-maze."""
    if words[:1] in (["--help"], ["-h"]):
        return "t_maze", ["--help"]
    if not words or not (words[0] in ENVIRONMENTS or words[0].startswith(GYM)):
        raise UserError(
            f"environment must be one of {', '.join(ENVIRONMENTS)}, or {GYM}NAME for one of Gymnasium; "
            f"got {' '.join(words[:1]) or 'none'!r}; write foretrace rl t_maze, say."
        )
    return words[0], list(words[1:])


def _live(name: str, options: Any, words: Sequence[str]) -> int:
    """Lets an agent live and leaves a run folder; the exit code says whether a signal stopped it."""
    if not 0 <= options.seed < 2**31:
        raise UserError(f"seed must be an int from 0 to 2**31 - 1; got {options.seed}; use 0.")
    if options.out is None:
        folder = re.sub(r"[^\w.]", "-", f"{name.removeprefix(GYM)}-{options.learner}")
        options = dataclasses.replace(options, out=Path("runs", folder))
    interval = SaveInterval.parse(options.checkpoint_every)
    scene = scene_of(name, options, options.seed)
    config = _format.config(options, environment=name, steps=scene.steps, command=["rl", *words])
    console = Console()
    with (
        _format.warnings_in_one_line(),
        open_run(options.out, config, interval, resume=options.resume) as folder,
        StopSignal() as stop,
    ):
        _format.say(console, *plan(name, options, scene), f"seed {options.seed}, run folder {options.out}")
        start = folder.restore(scene.state)
        if start:
            _format.say(console, f"goes on from step {start[1]['step']:,}")
        with Reporter(console, options.learner, scene.steps, scene.measured) as reporter:
            for record in folder.record(scene.lives(start), stop, _LOSS):
                reporter.show(record)
        if stop.signal is not None:
            again = f"foretrace resume {shlex.quote(str(options.out))}"
            _format.say(console, f"stopped at step {folder.saved:,}; go on with: {again}")
            return 128 + stop.signal
        _finish(console, name, options, scene, folder)
    return 0


_LOSS = "squared_error"  # of predictions; an agent that acts has no loss by which a checkpoint is the best


def scene_of(name: str, options: Any, seed: int) -> Scene:
    """World and agent of these options.

    Raises:
        UserError: an option is out of range.
    """
    for option in ("steps", "chunk", "hidden"):
        check_positive_int(option, getattr(options, option), "leave it out for the default")
    return (_gymnasium if name.startswith(GYM) else _pure)(name, options, seed)


def _pure(name: str, options: Any, seed: int) -> Scene:
    """One of our own environments: many steps in one dispatch."""
    make = ENVIRONMENTS[name].make
    world: Environment = make(**{o: getattr(options, o) for o in inspect.signature(make).parameters})
    agent = rl.build(options, world, world.discount)
    chunks = -(-options.steps // options.chunk)
    size = -(-options.steps // chunks)
    discount = world.discount if options.discount is None else options.discount
    skip = options.on_nonfinite == "skip"
    living = rl.living(agent, world, steps=size, discount=discount, skip=skip)
    key = jax.random.key(seed)

    def lives(start: Any) -> Iterator[Any]:
        return rl.live(living, key, chunks, start=start)

    return Scene(world, agent, chunks * size, living, jax.eval_shape(living.init, key), lives)


def _gymnasium(name: str, options: Any, seed: int) -> Scene:
    """A world of Gymnasium: one call per step."""
    env = gymnasium_env(name)
    world = rl.from_gymnasium(env)
    agent = rl.build(options, world, GYM_DISCOUNT)
    skip = options.on_nonfinite == "skip"

    def lives(start: Any) -> Iterator[Any]:
        numbers = {"steps": options.steps, "chunk": options.chunk, "skip": skip}
        return play(agent, env, world, seed, start=start, **numbers)

    state = jax.eval_shape(agent.init, jax.random.key(0))
    return Scene(world, agent, options.steps, Playing(), state, lives)


def gymnasium_env(name: str) -> Any:
    """The environment that follows `gym:`.

    Raises:
        UserError: Gymnasium is missing, or has none of that name.
    """
    gymnasium = import_extra("gymnasium", "rl")
    try:
        return gymnasium.make(name.removeprefix(GYM))
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError(
            f"environment must be one that Gymnasium has; got {name!r}: {error}; see "
            "gymnasium.envs.registry."
        ) from error


def plan(name: str, options: Any, scene: Scene) -> list[str]:
    """World, networks, learner and step rule, in lines."""
    state = scene.state.agent if isinstance(scene.state, rl.Life) else scene.state
    networks = state.learned.params
    parameters = sum(leaf.size for leaf in jax.tree.leaves(networks))
    size = sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state.memory)
        if hasattr(leaf.dtype, "itemsize")
    )
    layers = f"{options.layers} layers of " if options.layers > 1 else ""
    place = "inside" if options.encoder_inside else "before"
    encoder = f"{options.encoder} features {place} " if options.encoder else ""
    discount = (
        options.discount if options.discount is not None else getattr(scene.world, "discount", GYM_DISCOUNT)
    )
    return [
        f"{name}: {scene.world.observations} numbers to see, "
        f"{scene.world.actions or 'nothing to do but to predict'}, {scene.steps:,} steps",
        f"{options.agent}, networks for {' and '.join(networks)}: {encoder}{layers}{options.cell}, "
        f"{options.hidden} units; {parameters:,} parameters",
        f"{options.learner}: {_format.amount(size)}B of influence and window",
        f"{options.rule}, lambda {options.trace_decay:g}, gamma {discount:g}, one update every step",
    ]


def _finish(console: Console, name: str, options: Any, scene: Scene, folder: RunFolder) -> None:
    """Draws the curve, and says where the agent arrived: over the last tenth of its life."""
    records = folder.records()
    title = f"{name}: {options.agent}, {options.learner}, {options.cell} of {options.hidden}"
    plotting.plot_life(records, scene.measured, title, folder.path / "curve.png")
    last = records[-max(1, len(records) // 10) :]
    ends = []
    for metric in (*scene.measured.shown, scene.measured.loss_metric):
        weighed = [
            (r[metric.name], 1 if metric.is_loss else r["episodes"]) for r in last if metric.name in r
        ]
        if total := sum(weight for _, weight in weighed):
            ends.append(f"{metric.label} {sum(a * b for a, b in weighed) / total:.4g}")
    seconds = max(records[-1]["seconds"], 1e-9)
    _format.say(
        console,
        f"{options.learner}, {records[-1]['step']:,} steps, the last tenth: {', '.join(ends)}; "
        f"{records[-1]['step'] / seconds:,.0f} steps/s, {seconds:.0f} s",
        f"{folder.path}: config.json, metrics.jsonl, curve.png, checkpoints",
    )
    if skipped := sum(record.get("skipped", 0) for record in records):
        _format.say(console, f"{skipped:,} transitions were not finite and skipped")
