"""The command line: `foretrace train copy`, `foretrace compare copy` and `foretrace bench`."""

import contextlib
import dataclasses
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import foretrace
from foretrace import bench as timing
from foretrace import plotting, training

_EXAMPLES = """\
usage: foretrace {train,compare} copy [OPTIONS]
       foretrace bench [SETTING ...] [OPTIONS]

Train recurrent networks online, with gradients that are never truncated.

  foretrace train copy      train one network with one learner
  foretrace compare copy    train with several learners and seeds, side by side
  foretrace bench           time every learner's step beside the matrix product it stands on
  foretrace --version

examples:
  foretrace train copy --learner ok --rank 16 --hidden 128 --steps 100000 --out runs/big
  foretrace train copy --learner tbptt:5 --cell gru --out runs/gru
  foretrace compare copy --learner ok:8 --learner kf_rtrl --learner tbptt:5 --out runs/cmp

  foretrace bench highway-128 --out highway.json

All options: foretrace train copy --help, foretrace compare copy --help, foretrace bench --help.
"""
_T = TypeVar("_T")


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """Time one step of every learner at named, permanent settings, beside the products it needs.

    Examples:
      foretrace bench
      foretrace bench highway-128 rtrl-64 --out now.json
      foretrace bench --compare before.json now.json
    """

    settings: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of settings; all of them unless given."""
    repeats: int = 7
    """Runs of every loop, in turns; median, least and largest are shown."""
    device: Literal["cpu", "gpu"] | None = None
    """Where to run; the default device of JAX unless given."""
    out: Path | None = None
    """JSON file to write; it must not exist yet."""
    compare: tuple[Path, Path] | None = None
    """Two JSON files: show the ratios of their times, and time nothing."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    words = list(sys.argv[1:] if args is None else args)
    commands = {"train": (TrainCopy, train), "compare": (CompareCopy, compare)}
    if not words or words[0] in ("-h", "--help"):
        print(_EXAMPLES, end="")
        return 0
    if words[0] == "--version":
        print(f"foretrace {foretrace.__version__}")
        return 0
    try:
        if words[0] == "bench":
            bench(_parse(Bench, words[1:], "foretrace bench"))
            return 0
        if words[0] not in commands:
            raise ValueError(
                f"command must be train, compare or bench; got {words[0]!r}; see foretrace --help."
            )
        if words[1:2] == ["--help"] or words[1:2] == ["-h"]:
            words[1:2] = ["copy", "--help"]
        if words[1:2] != ["copy"]:
            raise ValueError(f"task must be copy; got {' '.join(words[1:2]) or 'none'!r}; add copy.")
        options, command = commands[words[0]]
        command(_parse(options, words[2:], f"foretrace {words[0]} copy"))
    except (TypeError, ValueError, OSError) as error:
        print(f"foretrace: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("foretrace: stopped by the keyboard.", file=sys.stderr)
        return 130
    return 0


def train(options: TrainCopy) -> None:
    """Trains one learner, as `foretrace train copy`."""
    job = training.job(options, options.learner, rank=options.rank, window=options.window)
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"seed must be an int from 0 to 2**32 - 1; got {options.seed}; use 0.")
    training.create_folder(options.out, _config(options, learner=job.label, **job.settings))
    console = Console()
    _say(console, *_plan(options, job), f"seed {options.seed}, run folder {options.out}")
    records = []
    with training.Reporter(console, job.label, job.steps) as reporter:
        for record in training.run(job.trainer, jax.random.key(options.seed), job.chunks):
            records.append(record)
            training.append_json(options.out / "metrics.jsonl", record)
            reporter.show(record)
    title = f"Copy task: {options.cell} with {options.hidden} units, {job.label}"
    plotting.plot_run(records, title, options.out / "curve.png")
    last = records[-1]
    _say(
        console,
        f"{job.label} reached T = {last['T']} in {job.steps:,} steps: "
        f"{_late(records, 'bits'):.3f} bits per character, "
        f"{job.steps / last['seconds']:,.0f} steps/s, {last['seconds']:.0f} s",
        f"{options.out}: config.json, metrics.jsonl, curve.png",
    )


def compare(options: CompareCopy) -> None:
    """Trains several learners, as `foretrace compare copy`."""
    if not 1 <= options.seeds <= 1000:
        raise ValueError(f"seeds must be an int from 1 to 1000; got {options.seeds}; use 3.")
    texts = options.learner or ("ok:8", "kf_rtrl", "uoro", "tbptt:5")
    jobs = [training.job(options, text) for text in dict.fromkeys(texts)]
    settings = {job.label: job.settings for job in jobs}
    training.create_folder(options.out, _config(options, learner=settings))
    console = Console()
    for line in dict.fromkeys(line for job in jobs for line in _plan(options, job)):
        _say(console, line)
    results, curves = {}, {}
    for job in jobs:
        results[job.label], curves[job.label] = _compete(console, options, job)
    training.write_json(options.out / "results.json", results)
    title = f"Copy task: {options.cell} with {options.hidden} units, {options.seeds} seeds"
    plotting.plot_comparison(curves, title, options.out / "comparison.png")
    console.print(_table(results))
    _say(console, f"{options.out}: config.json, metrics.jsonl, results.json, comparison.png")


def bench(options: Bench) -> None:
    """Times the learners, as `foretrace bench`."""
    if options.compare:
        old, new = (timing.read_record(path) for path in options.compare)
        for setting, learner, before, after, ratio in timing.compare_records(old, new):
            print(f"{setting:12} {learner:10} {before:10.1f} us {after:10.1f} us {ratio:6.2f} x")
        return
    if not 1 <= options.repeats <= 1000:
        raise ValueError(f"repeats must be an int from 1 to 1000; got {options.repeats}; use 7.")
    unknown = [name for name in options.settings if name not in timing.SETTINGS]
    if unknown:
        known = ", ".join(timing.SETTINGS)
        raise ValueError(f"setting must be one of {known}; got {unknown[0]!r}; leave it out for all.")
    if options.out and (options.out.exists() or not options.out.parent.is_dir()):
        raise ValueError(
            f"out must be a new file in a folder that exists; got {options.out}; choose another."
        )
    if options.device:
        timing.choose_device(options.device)
    record: dict[str, Any] = timing.environment()
    print(", ".join(f"{key} {value}" for key, value in record.items()))
    names = options.settings or tuple(timing.SETTINGS)
    record["settings"] = [timing.measure_setting(name, options.repeats) for name in names]
    if options.out:
        training.write_json(options.out, record)


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
        "bits": _late(records, "bits").tolist(),
        "steps": job.steps,
        "steps_per_second": round(job.steps * options.seeds / records[-1]["seconds"]),
        "bytes": job.cost.bytes,
        "operations": job.cost.operations,
    }
    heights = [[1] * options.seeds, *(record["T"] for record in records)]
    return results, ([0, *(record["step"] for record in records)], np.transpose(heights))


def _plan(options: training.Settings, job: training.Job) -> list[str]:
    """What will be done and what it costs, in lines."""
    found, cost = job.explanation, job.cost
    groups = f"{found.groups} Kronecker group{'s' if found.groups > 1 else ''}"
    every = "step" if job.update_every == 1 else f"{job.update_every} steps"
    return [
        f"copy task, {options.lanes} lanes, {job.steps:,} steps",
        f"{options.cell}, {options.hidden} units: {found.parameters:,} parameters in {groups}",
        f"{job.label}, block {job.block}: {_amount(cost.bytes)}B of influence and window, "
        f"{_amount(cost.operations)}FLOP per step",
        f"Adam {options.learning_rate:g}, clip {options.clip:g}, one update every {every}",
    ]


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
            f"{_amount(found['bytes'])}B",
            f"{_amount(found['operations'])}FLOP",
        )
    return table


def _late(records: list[dict[str, Any]], name: str) -> Any:
    """Mean over the last tenth of a run: one chunk alone is noisy."""
    return np.mean([record[name] for record in records[-max(1, len(records) // 10) :]], axis=0)


def _amount(value: float) -> str:
    """A number with three digits and the prefix of its unit."""
    power = min(3, max(0, (len(str(int(value))) - 1) // 3))
    return f"{value / 1000**power:.3g} {('', 'k', 'M', 'G')[power]}"


def _config(options: Any, **resolved: Any) -> dict[str, Any]:
    """The options as given, replaced by what they came to; without what was not given."""
    config = dataclasses.asdict(options) | {"out": str(options.out)} | resolved
    return {name: value for name, value in config.items() if value is not None}


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _parse(options: type[_T], words: list[str], prog: str) -> _T:
    """Parses with tyro, but says in one sentence what is wrong."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(options, args=words, prog=prog)
    except SystemExit as stop:
        if not stop.code:
            raise
        # Tyro draws a box, in Unicode or in ASCII; what matters stands between its first two rules.
        body = re.split(r"(?m)^.*(?:─{3}|-{3}).*$", said.getvalue())[1]
        text = " ".join(line.strip("│ ") for line in body.splitlines()).strip()
        text = text.split("Got errors")[0].strip().rstrip(".")
        text = re.sub(r"no type matching .* could be instantiated from", "it must be an int, got", text)
        raise ValueError(f"{text}; see {prog} --help.") from None
