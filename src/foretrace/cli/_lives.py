"""`foretrace compare` for agents: several learners, several seeds, one life after the other."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from foretrace import plotting
from foretrace._checks import UserError
from foretrace.cli import _format
from foretrace.cli._parse import parse
from foretrace.cli.rl import Life, Scene, options_for, plan, scene_of
from foretrace.runs._folder import RunFolder, open_run, to_bytes
from foretrace.runs._progress import Reporter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare(Life):
    """Writes config.json, metrics.jsonl, results.json and comparison.png to the folder."""

    learner: tyro.conf.UseAppendAction[tuple[str, ...]] = ()  # type: ignore[assignment]
    """One of those that `foretrace learners` lists. Repeat it. Unless given: rtrl and tbptt:1."""
    seeds: int = 3
    """Number of seeds."""
    out: Path = Path("runs/compare")  # type: ignore[assignment]
    """Run folder, created; without --resume it must not hold a run yet."""
    resume: bool = False
    """Go on with the run in --out: lives that are over stay, the others begin anew."""


def run(name: str, words: Sequence[str]) -> None:
    """Lets several agents live and leaves a folder with a table and a picture.

    Args:
        name: of the world.
        words: typed after it.
    """
    purpose = "Compare learners, with several seeds, as the memory of an agent in"
    options: Any = parse(options_for(name, Compare, purpose), words, f"foretrace compare {name}")
    if not 1 <= options.seeds <= 1000:
        raise UserError(f"seeds must be an int from 1 to 1000; got {options.seeds}; use 3.")
    labels = list(dict.fromkeys(options.learner or ("rtrl", "tbptt:1")))
    scenes = {
        (label, seed): scene_of(name, dataclasses.replace(options, learner=label), seed)
        for label in labels
        for seed in range(options.seeds)
    }
    first = scenes[labels[0], 0]
    config = _format.config(options, environment=name, learner=labels, command=["compare", name, *words])
    console = Console()
    with open_run(options.out, config, resume=options.resume) as folder:
        for label in labels:
            one = dataclasses.replace(options, learner=label)
            _format.say(console, *plan(name, one, scenes[label, 0]))
        lives = {key: _records(console, scene, key, folder) for key, scene in scenes.items()}
        metric = (*first.measured.shown, first.measured.loss_metric)[0]
        curves = {
            label: _curve([lives[label, s] for s in range(options.seeds)], metric.name) for label in labels
        }
        results = {label: _results(curve) for label, curve in curves.items()}
        (folder.path / "results.json").write_bytes(to_bytes(results))
        title = f"{name}: {options.agent}, {options.cell} of {options.hidden}, {options.seeds} seeds"
        plotting.plot_comparison(curves, metric, title, folder.path / "comparison.png")
    table = Table(
        "learner", title="mean and standard deviation over seeds, last tenth", title_justify="left"
    )
    table.add_column(metric.label, justify="right")
    for label, ends in results.items():
        table.add_row(label, f"{np.mean(ends['values']):.4g} ± {np.std(ends['values']):.2g}")
    console.print(table)
    _format.say(console, f"{options.out}: config.json, metrics.jsonl, results.json, comparison.png")


def _records(
    console: Console, scene: Scene, key: tuple[str, int], folder: RunFolder
) -> list[dict[str, Any]]:
    """The records of one life: those in the folder where it is over already."""
    label, seed = key
    mine = {"learner": label, "seed": seed}
    records = [r for r in folder.records() if r.items() >= mine.items()]
    if records and records[-1]["step"] >= scene.steps:
        return records
    folder.rewrite([r for r in folder.records() if not r.items() >= mine.items()])
    records, lives = [], scene.lives(None)
    next(lives)
    with Reporter(console, f"{label}, seed {seed}", scene.steps, scene.measured) as reporter:
        for _, record in lives:
            records.append(mine | record)
            folder.append(records[-1])
            reporter.show(record)
    return records


def _curve(lives: list[list[dict[str, Any]]], name: str) -> tuple[list[int], np.ndarray]:
    """Steps, and the metric of every seed at them; before the first end of an episode there is none."""
    rows = [[record for record in records if name in record] for records in lives]
    count = min(map(len, rows))
    if not count:
        raise UserError("steps must reach the end of an episode; got too few; give more of them.")
    steps = [record["step"] for record in rows[0][-count:]]
    return steps, np.array([[record[name] for record in records[-count:]] for records in rows])


def _results(curve: tuple[list[int], np.ndarray]) -> dict[str, Any]:
    """The mean of every seed over the last tenth."""
    steps, values = curve
    return {"steps": steps[-1], "values": values[:, -max(1, len(steps) // 10) :].mean(axis=1).tolist()}
