"""Why `low_rank` is so quiet, and where it is not: noise at equal bytes, and what is left of the past."""

from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from foretrace import cells, learners, tasks
from foretrace._types import Cell
from foretrace._xla import jit_fast_compile
from foretrace.experiments._compare import compare
from foretrace.experiments._experiment import Experiment, Finding, Reported, mean_spread
from foretrace.experiments._fixed_networks import streams_of
from foretrace.learners import rtrl
from foretrace.plotting import Chart, Line
from foretrace.structure._find import structure_of
from foretrace.training import trainer

_SYMBOLS = 4  # of the copy task
_TRAINED = {
    "highway": cells.highway,
    "gru": cells.gru,
    "lstm": cells.lstm,
    "rnn": cells.rnn,
}
# Networks in which all units are slow: nothing of the past dies out in any direction.
_SLOW = {
    "highway, carry bias 4": cells.highway,
    "lstm, forget bias 3": cells.lstm,
    "leaky, 10 to 100 steps": lambda hidden, inputs: cells.leaky(
        hidden=hidden, inputs=inputs, time_constant=np.geomspace(10, 100, hidden).tolist()
    ),
}


def _network(kind: str, settings: dict[str, Any], key: Any) -> tuple[Cell, Any, tuple]:
    """A cell, its frozen parameters, and the streams that it reads."""
    units, make = settings["units"], (_TRAINED | _SLOW)[kind]
    cell, task = make(hidden=units, inputs=_SYMBOLS), tasks.copy()
    loop = trainer(
        cell,
        learners.low_rank(cell, rank=min(8, units)),
        task,
        optax.adam(settings["rate"]),
        lanes=settings["lanes"],
        steps=-(-settings["training"] // 16) * 16,
        clip=1.0,
    )
    carry = jax.jit(loop.init)(key)
    if kind in _TRAINED:
        carry, _ = jit_fast_compile(loop.chunk)(carry)
        params = carry.params
    else:
        params = carry.params | {"cell": _slowed(kind, units, carry.params["cell"], key)}
    state = carry.streams.task
    # In sequences shorter than two blocks nothing is ever compressed.
    state = state._replace(curriculum=jnp.maximum(state.curriculum, settings["length"]))
    streams = jax.jit(lambda: streams_of(cell, task, params, state, settings["steps"]))()
    return cell, params["cell"], jax.tree.map(lambda a: a[:, : settings["streams"]], streams)


def _slowed(kind: str, units: int, params: Any, key: Any) -> Any:
    """Random parameters with gates that keep what is there."""
    keys = jax.random.split(key, 2)
    scales = {"input": 1.0, "recurrent": units**-0.5}
    params = params | {
        name: scale * jax.random.normal(k, params[name].shape)
        for k, (name, scale) in zip(keys, scales.items(), strict=True)
    }
    shift = {"highway, carry bias 4": 4.0, "lstm, forget bias 3": 3.0}.get(kind, 0.0)
    return params | {"bias": params["bias"].at[units : 2 * units].add(shift)}


def _run(settings, say, part):
    result: dict[str, Any] = {"networks": {}, "ages": list(settings["ages"])}
    for kind in settings["networks"]:
        every = [
            part(f"{kind}, seed {seed}", partial(_measure, kind, seed, settings))
            for seed in range(settings["seeds"])
        ]
        values = {
            label: {name: np.array([one[label][name] for one in every]) for name in every[0][label]}
            for label in ("error", "reduction")
        }
        result["networks"][kind] = values | {"bytes": every[0]["bytes"]}
        figures = ", ".join(f"{name} {np.mean(v):.2g}" for name, v in values["error"].items())
        say(f"{kind}: relative variance {figures}")
    return result


def _measure(kind: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Relative variance and bytes per lane of each learner, and what a reduction at each age costs."""
    cell, params, (xs, credits, restarts) = _network(kind, settings, jax.random.key(seed))
    members = _members(cell, settings)
    compared = compare(cell, members, params, xs, credits, restarts=restarts, draws=settings["draws"])
    return {
        "error": {name: float(error.mean()) for name, (error, *_) in compared.values.items()},
        "bytes": {name: _bytes(learner, params) for name, learner in members.items()},
        "reduction": _spectra(cell, params, xs[:, 0], restarts[:, 0], settings["ages"]),
    }


def _members(cell: Cell, settings: dict[str, Any]) -> dict[str, Any]:
    size = structure_of(cell).state_size
    members = {name: learners.parse(name).build(cell) for name in settings["learners"]}
    for rank, probes, block in settings["shapes"]:
        if rank <= size:
            name = f"low_rank:{rank}/{block}, {probes} probes"
            members[name] = learners.low_rank(cell, rank=rank, probes=probes, block=block)
    return members


def _bytes(learner: Any, params: Any) -> int:
    state = jax.eval_shape(lambda: learner.init(jax.random.key(0), params))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def _spectra(cell: Cell, params: Any, xs: Any, restarts: Any, ages: Any) -> dict[str, list[float]]:
    """Relative variance of one optimal reduction of the exact influence of all that is older than an age.

    Mean over the last steps of the stream, of the squared errors beside the mean square.
    """
    learner, structure = rtrl(cell), structure_of(cell)
    size = structure.state_size

    def step(state, inputs):
        x, restart = inputs
        state = learner.reset(state, restart)
        before = structure.ravel(state.hidden)

        def move(flat):
            return structure.ravel(cell.step(params, structure.unravel(flat), x))

        jacobian = jnp.where(restart, 0, jax.jacobian(move)(before))
        state = learner.advance(params, state, x)
        return state, (jacobian, [group[0] for group in state.past.groups])

    state = learner.init(jax.random.key(0), params)
    _, (jacobians, groups) = jit_fast_compile(lambda: jax.lax.scan(step, state, (xs, restarts)))()
    jacobians = np.asarray(jacobians, np.float64)
    groups = [np.asarray(group, np.float64) for group in groups]  # (steps, S, F, Z)
    steps = len(jacobians)
    result: dict[str, list[float]] = {}
    for rank, age in product((4, 8), ages):
        errors = {"hidden": 0.0, "Kronecker": 0.0}
        mass = 0.0
        for t in range(max(ages), steps, max(1, steps // 32)):
            moved = np.eye(size)
            for s in range(t - age + 1, t + 1):
                moved = jacobians[s] @ moved
            old = [np.tensordot(moved, group[t - age], 1) for group in groups]
            flat = np.concatenate([a.reshape(size, -1) for a in old], axis=1)
            mass += float(np.sum(flat**2))
            errors["hidden"] += _reduction(flat, rank)
            errors["Kronecker"] += sum(
                _reduction(np.swapaxes(a, 0, 1).reshape(a.shape[1], -1), rank) for a in old
            )
        for name, error in errors.items():
            result.setdefault(f"rank {rank}, {name}", []).append(error / mass if mass > 0 else 0.0)
    return result


def _reduction(matrix: np.ndarray, rank: int) -> float:
    """s1^2 / k - sum d^2 of the best unbiased reduction of a matrix to `rank` products."""
    d = np.linalg.svd(matrix, compute_uv=False)
    tails = np.cumsum(d[::-1])[::-1]
    exact = int(np.argmax((rank - np.arange(d.size)) * d <= tails))
    return float(max(tails[exact] ** 2 / (rank - exact) - np.sum(d[exact:] ** 2), 0.0))


def _check(result):
    findings = []
    for kind, values in result["networks"].items():
        error = {label: float(np.mean(v)) for label, v in values["error"].items()}
        ours, theirs, aged = "low_rank:8/16", "ok:8/16", "ok:8/16+1"
        if not {ours, theirs, aged} <= error.keys():
            continue
        ratio = error[ours] / error[theirs] if error[theirs] > 0 else float("nan")
        measured = f"{ours} {error[ours]:.2g}, {theirs} {error[theirs]:.2g}"
        if kind in _TRAINED:
            claim = f"{kind}, trained: a hundredth of OK's variance at rank 8, block 16, or less"
            findings.append(Finding(claim, ratio <= 0.01, measured))
        else:
            findings.append(Finding(f"{kind}: OK is less noisy there", ratio > 1, measured))
        claim = f"{kind}: an age of one block takes nine tenths of OK's variance or more"
        measured = f"{aged} {error[aged]:.2g}, {theirs} {error[theirs]:.2g}"
        findings.append(Finding(claim, error[aged] <= 0.1 * error[theirs], measured))
    return findings


def _table(result):
    labels = list(dict.fromkeys(label for v in result["networks"].values() for label in v["error"]))
    rows: list[tuple[str, ...]] = [("learner", "kB", *result["networks"])]
    first = next(iter(result["networks"].values()))
    for label in labels:
        cells_ = (
            mean_spread(values["error"][label], 2) if label in values["error"] else "-"
            for values in result["networks"].values()
        )
        rows.append((label, f"{first['bytes'].get(label, 0) / 1e3:,.0f}", *cells_))
    return rows


def _charts(result):
    charts = []
    for kind, values in result["networks"].items():
        lines = [
            Line(label, [values["bytes"][label] / 1e3], np.reshape(error, (-1, 1)))
            for label, error in values["error"].items()
        ]
        title = f"Relative variance, {kind}"
        charts.append(Chart(title, "kB per lane", lines, floor=1e-9, points=True))
    for kind, values in result["networks"].items():
        lines = [Line(label, result["ages"], noise) for label, noise in values["reduction"].items()]
        title = f"Noise of one reduction, {kind}"
        charts.append(Chart(title, "age of what is reduced, steps", lines, ("y",), floor=1e-12))
    return charts


# Rank, probes and block beside those of the named ones, where there are as many probes as directions.
_SHAPES = ((4, 4, 8), (8, 8, 8), (4, 8, 16), (8, 4, 16))
_COMMON = {
    "rate": 3e-3, "lanes": 4, "length": 24, "streams": 2, "draws": 8, "ages": (0, 4, 8, 16, 32),
    "learners": ("uoro/16", "uoro/16+1", "kf_rtrl/16", "kf_rtrl/16+1", "ok:4/16", "ok:8/16", "ok:16/16",
                 "ok:4/16+1", "ok:8/16+1", "ok:8/8+1", "low_rank:4/16", "low_rank:8/16"),
    "shapes": _SHAPES,
}  # fmt: skip

LOW_RANK = Experiment(
    name="low-rank",
    claim="In networks that have learned to remember, what is older than a block has few directions in the "
    "hidden state: low_rank has a hundredth of OK's variance or less, at equal bytes. Where all units are "
    "slow OK is better. OK with an age of a block is quiet in all of them.",
    protocol="Networks with frozen parameters go on reading the stream that they were trained on; every "
    "learner's gradient is compared with that of exact RTRL, at the credits of the loss, over several "
    "draws. Beside it: the variance of one optimal reduction of the exact influence of all steps older "
    "than some age, between the hidden state and all else, and between input factors and all else.",
    source="low_rank is ours.",
    reported=(
        Reported(
            "variance of OK's reduction", "the least of any unbiased one to r Kronecker products",
            "Benzing et al., ICML 2019, theorem", False,
        ),
    ),
    deviations=(
        "Networks that low_rank:8/16 trained on the copy task, measured on sequences of 24 bits, at scale "
        "day 18, or as many as they had reached: in shorter ones nothing is older than two blocks.",
        "Slow networks are random: gates with large biases, as some initialise them.",
    ),
    scales={
        "quick": _COMMON
        | {
            "seeds": 1, "units": 16, "steps": 208, "training": 10_000, "draws": 4,
            "networks": ("highway", "highway, carry bias 4"), "shapes": (),
        },
        "day": _COMMON
        | {
            "seeds": 5, "units": 32, "steps": 400, "lanes": 16, "length": 18, "training": 60_000,
            "networks": (*_TRAINED, *_SLOW),
        },
        "full": _COMMON
        | {
            "seeds": 5, "units": 128, "steps": 400, "lanes": 16, "training": 400_000, "draws": 16,
            "networks": (*_TRAINED, *_SLOW),
        },
    },
    run=_run,
    check=_check,
    table=_table,
    charts=_charts,
)  # fmt: skip
