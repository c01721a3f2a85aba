"""Named, permanent speed settings: every learner's step beside the matrix product it stands on.

A step is a forward step, a gradient and an update of the parameters, in a jitted scan of many. Its floor is
the product of the papers' algorithm at the same shapes, (lanes, S, S) @ (lanes, S, R Z), in the same kind
of loop. All figures of one setting come from one process and are taken in turns, so that other load of
the machine falls on all of them.
"""

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace import cells
from foretrace._checks import UserError
from foretrace._types import Cell, Learner
from foretrace.experiments._timing import Loop, compiled, learning_loop, spread, state_bytes, take_turns
from foretrace.learners import SPECS, Explanation, analyse, parse

_REFERENCE = "tbptt:25"  # timed in every setting, with one sweep per window


class Setting(NamedTuple):
    """A cell, its lanes and the learners timed on it.

    Attributes:
        cell: name of the cell.
        hidden: units.
        inputs: length of an input.
        lanes: number of streams.
        learners: `NAME:N/K` is NAME with number N and block K.
        svd: size of square matrices whose decomposition, one per lane, is timed as well.
    """

    cell: str
    hidden: int
    inputs: int
    lanes: int
    learners: tuple[str, ...]
    svd: int | None = None

    def build_cell(self) -> Cell:
        """The cell of that name and size."""
        return getattr(cells, self.cell)(hidden=self.hidden, inputs=self.inputs)


def _stored(*names: str) -> tuple[str, ...]:
    """Each learner, and the same with a past in bfloat16."""
    return tuple(text for name in names for text in (name, f"{name}@bfloat16"))


_LOW_RANK = ("low_rank:4/16", "low_rank:8/16")
SETTINGS = {
    "rnn-256": Setting("rnn", 256, 32, 1, ("kf_rtrl", "ok:8", "kf_rtrl/16", "ok:8/16")),
    "highway-128": Setting(
        "highway", 128, 4, 16, ("ok:16", "ok:16/8", "ok:16/16", "ok:16/32", "kf_rtrl", "kf_rtrl/16")
    ),
    "highway-256": Setting("highway", 256, 50, 32, ("ok:8", "ok:8/8", "ok:8/16", "ok:8/32")),
    "low-rank-128": Setting("highway", 128, 4, 16, ("ok:8/8", "ok:8/16", "ok:8/16+1", *_LOW_RANK)),
    "low-rank-256": Setting("highway", 256, 50, 32, ("ok:8/16", "ok:8/32", "ok:8/16+1", *_LOW_RANK)),
    "low-rank-512": Setting("highway", 512, 50, 8, ("ok:8/16", "ok:8/32", "ok:8/16+1", *_LOW_RANK)),
    "low-rank-1024": Setting("lstm", 1024, 32, 1, ("tbptt:1", *_LOW_RANK)),
    "highway-32": Setting("highway", 32, 4, 16, ("ok:8", "ok:8/8", "ok:8/16", "ok:8/32", "kf_rtrl"), svd=9),
    "lstm-128": Setting("lstm", 128, 32, 8, ("ok:8", "ok:8/16")),
    "gru-128": Setting("gru", 128, 32, 8, ("ok:8", "ok:8/16")),
    "rtrl-32": Setting("highway", 32, 4, 1, ("rtrl", "rtrl/8", "rtrl/32")),
    "rtrl-64": Setting("highway", 64, 4, 1, ("rtrl", "rtrl/8", "rtrl/16", "rtrl/32", "rtrl/64")),
    "uoro-256": Setting("rnn", 256, 32, 1, ("uoro", "uoro/16", "tbptt:1")),
    "bfloat16-256": Setting(
        "leaky", 256, 32, 32, _stored("rflo", "snap:1", "uoro", "ok:8/16", "low_rank:8/16")
    ),
    "bfloat16-rtrl": Setting("rnn", 64, 4, 8, _stored("rtrl", "rtrl/16")),
    "bfloat16-diagonal": Setting("diagonal", 1024, 32, 32, _stored("rtrl")),
    "every-32": Setting("rnn", 32, 4, 16, tuple(str(parse(name)) for name in SPECS)),
}


def measure_setting(
    name: str, repeats: int = 7, say: Callable[[str], None] = print, setting: Setting | None = None
) -> dict[str, Any]:
    """Times one setting: a record of its floors and one row per learner.

    Args:
        name: one of `SETTINGS`, or any name for a `setting` of your own.
        repeats: runs of every loop, taken in turns.
        say: called with one line per learner.
        setting: `SETTINGS[name]` by default.

    Returns:
        A JSON-able record; times in microseconds per step, median, least and largest of the runs.
    """
    setting = setting or SETTINGS[name]
    cell = setting.build_cell()
    explanation = analyse(cell)
    loops, rows = {}, []
    texts = tuple(dict.fromkeys((*setting.learners, _REFERENCE)))
    for text in texts:
        choice = parse(text)
        kind, number, learner = choice.spec.name, choice.number, choice.build(cell)
        loops[text] = _learning_loop(cell, learner, setting, sweep=text == _REFERENCE)
        floor = _floor_name(explanation, kind, number)
        if floor and floor not in loops:
            loops[floor] = _floor_loop(explanation.structure, kind, number, setting.lanes)
    if setting.svd:
        loops[f"svd {setting.svd} x {setting.svd}"] = _svd_loop(setting.lanes, setting.svd)
    times = take_turns(loops, repeats)
    for text in texts:
        kind, number = parse(text).spec.name, parse(text).number
        loop, us = loops[text], times[text]
        cost = explanation.cost(text, lanes=setting.lanes)
        row = {"learner": text, **spread(us)}
        floor = _floor_name(explanation, kind, number)
        if floor:
            row |= {"floor": floor, "floor_us": float(np.median(times[floor]))}
            row["floor_per_step"] = float(np.median(times[floor] / us))
        row |= {
            "gflop_per_s": cost.operations / float(np.median(us)) / 1e3,
            "state_bytes": state_bytes(loop.state[1]),
            "compile_s": loop.compile_seconds,
        }
        rows.append(row)
        ratio = f", floor/step {row['floor_per_step']:.2f}" if floor else ""
        say(
            f"{name:12} {text:10} {row['us']:10.1f} us/step ({row['us_min']:.1f} to {row['us_max']:.1f})"
            f"{ratio}, {row['gflop_per_s']:.0f} GFLOP/s, {row['state_bytes'] / 1e6:.2f} MB, "
            f"compiled in {loop.compile_seconds:.1f} s"
        )
    others = {key: spread(times[key]) for key in loops if key not in texts}
    for key, value in others.items():
        say(f"{name:12} {key:10} {value['us']:10.1f} us ({value['us_min']:.1f} to {value['us_max']:.1f})")
    return {"setting": name, **setting._asdict(), "rows": rows, "floors": others}


def environment() -> dict[str, str]:
    """Device, versions and commit, for the record."""
    folder = Path(__file__).resolve().parent
    git = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "device": f"{jax.devices()[0].platform}: {jax.devices()[0].device_kind}",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "foretrace": importlib.metadata.version("foretrace"),
        "commit": git.stdout.strip() or "unknown",
    }


def table_of(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for every learner that a record holds, after a heading; for `columns`."""
    rows: list[tuple[str, ...]] = [("setting", "learner", "us/step", "step / product", "MB")]
    for setting in record["settings"]:
        for row in setting["rows"]:
            ratio = f"{row['us'] / row['floor_us']:.2f}" if "floor_us" in row else "-"
            megabytes = f"{row['state_bytes'] / 1e6:.2f}"
            rows.append((setting["setting"], row["learner"], f"{row['us']:,.1f}", ratio, megabytes))
    return rows


def compare_records(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for every learner that both records hold, after a heading: medians, their spread and ratio."""
    spread = "(least to most)"
    rows: list[tuple[str, ...]] = [
        ("setting", "learner", "before, us", spread, "after, us", spread, "ratio")
    ]
    before = {(s["setting"], row["learner"]): row for s in old["settings"] for row in s["rows"]}
    for setting in new["settings"]:
        for row in setting["rows"]:
            earlier = before.get((setting["setting"], row["learner"]))
            if earlier:
                times = [cell for each in (earlier, row) for cell in _median_and_spread(each)]
                ratio = f"{earlier['us'] / row['us']:.2f} x"
                rows.append((setting["setting"], row["learner"], *times, ratio))
    return rows


def _median_and_spread(row: dict[str, Any]) -> tuple[str, str]:
    return f"{row['us']:,.1f}", f"({row['us_min']:,.1f} to {row['us_max']:,.1f})"


def choose_device(device: str) -> None:
    """Runs everything on "cpu" or "gpu" from now on.

    Raises:
        ValueError: JAX has no such device here.
    """
    try:
        jax.config.update("jax_default_device", jax.devices(device)[0])
    except RuntimeError:
        raise UserError(
            f"device must be one that JAX has here; got {device!r}; install JAX for it, or leave it out."
        ) from None


def read_bench(path: Path) -> dict[str, Any]:
    """A record that `foretrace bench` wrote.

    Raises:
        ValueError: the file is not there, or is none.
    """
    try:
        record = json.loads(path.read_text())
        if record["settings"][0]["rows"][0]["us"] > 0:
            return record
    except (OSError, ValueError, LookupError, TypeError):
        pass
    raise UserError(
        f"compare must name two files that foretrace bench wrote; got {path}; make it with --out."
    )


def _learning_loop(cell: Cell, learner: Learner, setting: Setting, *, sweep: bool) -> Loop:
    """The learner's loop, with weights as large as those of a network that has learned.

    With tiny initial ones nothing has a past.
    """
    params = jax.tree.map(
        lambda a: a / (1e-6 + jnp.std(a)) * setting.hidden**-0.5, cell.init(jax.random.key(0))
    )
    inputs = jax.random.normal(jax.random.key(2), (learner.block, setting.lanes, setting.inputs))
    return learning_loop(learner, params, inputs, sweep=sweep)


def _floor_name(explanation: Explanation, kind: str, number: int) -> str | None:
    """The product that a learner stands on; None where it takes none."""
    structure = explanation.structure
    dense = structure.state_size * sum(g.preact_size * g.factor_size for g in structure.groups)
    if kind == "rtrl" and explanation.cost("rtrl").bytes < dense * jnp.dtype(structure.dtype).itemsize:
        return None  # a recurrence within units: its influence is no matrix of S rows
    return {"ok": f"product R={number}", "kf_rtrl": "product R=1", "rtrl": "product (S,S) @ (S,P)"}.get(
        kind
    )


def _floor_loop(structure, kind: str, number: int, lanes: int) -> Loop:
    """The product of the papers' algorithm at block 1, alone."""
    size = structure.state_size
    width = sum(g.preact_size * (number if kind != "rtrl" else g.factor_size) for g in structure.groups)
    jacobian = jax.random.normal(jax.random.key(0), (lanes, size, size)) * size**-0.5
    right = jax.random.normal(jax.random.key(1), (lanes, size, width))

    def product(carry):
        jacobian, right = carry
        return jacobian, jacobian @ right

    return compiled(partial(_repeated, product), (jacobian, right), 1)


def _svd_loop(lanes: int, size: int) -> Loop:
    """One batched singular value decomposition of (lanes, size, size)."""

    def step(matrix):
        u, d, vt = jnp.linalg.svd(matrix)
        return (u * (d * 0.9 + 0.1)[:, None, :]) @ vt

    return compiled(partial(_repeated, step), jax.random.normal(jax.random.key(0), (lanes, size, size)), 1)


def _repeated(body: Callable[[Any], Any], carry: Any, count: int) -> Any:
    return jax.lax.scan(lambda carry, _: (body(carry), None), carry, length=count)[0]
