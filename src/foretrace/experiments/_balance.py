"""Influence balancing: where truncation drives a parameter away from its optimum."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from foretrace import tasks
from foretrace.experiments._curves import curves
from foretrace.experiments._experiment import Experiment, Finding, Reported, mean_spread
from foretrace.learners import parse
from foretrace.plotting import Chart, Line
from foretrace.training import chunks_for, trainer

_OPTIMUM = -1 / 6
_FAR = 1e3  # a parameter so far away does not return


def _run(settings, say, part):
    task = tasks.balance()
    if task.cell is None:
        raise RuntimeError("the task balance does not prescribe its cell")
    result: dict[str, Any] = {"influence": _influence(task.cell, 1000), "learners": {}}
    for label, (rate, length) in settings["learners"].items():
        learn = partial(_learn, task, label, rate, length, settings["seeds"])
        result["learners"][label] = curve = part.long(label, learn)
        theta = np.array(curve["theta"])[:, -1]
        say(f"{label}: theta = {mean_spread(theta, 4)} after {curve['steps'][-1]:,} steps")
    return result


def _learn(task, label, rate, length, seeds, progress):
    """Theta of every seed while one learner learns."""
    learner = parse(label).build(task.cell)
    every = parse(label).update_every
    steps, chunks = chunks_for(length, learner.block, max(learner.block, length // 200))
    training = trainer(task.cell, learner, task, optax.sgd(rate), lanes=1, steps=steps, update_every=every)
    curve = curves(training, seeds, chunks, progress, lambda step, carry: carry.params["cell"]["theta"])
    theta = np.clip(np.nan_to_num(curve.values["watched"], nan=_FAR), -_FAR, _FAR)
    return {"steps": curve.steps, "theta": theta}


def _influence(cell: Any, longest: int) -> list[float]:
    """The factor with which TBPTT of a window K steers, K = 1 .. longest: the mean of S_1 .. S_K."""
    matrix = jax.jacobian(lambda s: cell.step({"theta": jnp.zeros(())}, s, jnp.zeros(0)))(
        cell.initial_hidden()
    )
    matrix, drive = np.array(matrix, float), np.array(cell.step({"theta": jnp.ones(())}, 0 * matrix[0], 0))
    sums, total, term = [], 0.0, drive.astype(float)
    for _ in range(longest):
        total += term[0]
        sums.append(total)
        term = matrix @ term
    return (np.cumsum(sums) / np.arange(1, longest + 1)).tolist()


def _window(label):
    choice = parse(label)
    return choice.number if choice.spec.name == "tbptt" else None


def _check(result):
    findings = []
    for label, curve in result["learners"].items():
        theta, window = np.array(curve["theta"]), _window(label)
        away = np.abs(theta[:, -1] - _OPTIMUM)
        steers = result["influence"][window - 1] if window else -6.0
        if steers > 0:
            claim, holds = "moves away from the optimum (2/3 at the start)", bool(np.all(away > 1))
        else:
            claim, holds = "reaches theta within 1 % of -1/6", bool(np.all(away < 0.01 / 6))
        measured = f"theta {mean_spread(theta[:, -1], 5)}" if away.max() < _FAR / 2 else "beyond all bounds"
        findings.append(Finding(f"{label} {claim}", holds, measured))
    return findings


def _table(result):
    rows = [("learner", "influence that steers (theory)", "theta at the end", "time steps")]
    for label, curve in result["learners"].items():
        theta, window = np.array(curve["theta"])[:, -1], _window(label)
        steers = result["influence"][window - 1] if window else -6.0
        end = "beyond all bounds" if np.abs(theta).max() >= _FAR / 2 else mean_spread(theta, 5)
        rows.append((label, f"{steers:+.2f}", end, f"{curve['steps'][-1]:,}"))
    return rows


def _charts(result):
    lines: list[Line] = []
    for label, curve in result["learners"].items():
        away = np.abs(np.array(curve["theta"]) - _OPTIMUM)
        line = Line(label, [1, *curve["steps"]], [[2 / 3, *values] for values in away])
        if lines and line.x == lines[-1].x and np.allclose(line.y, lines[-1].y, rtol=0.05, atol=1e-5):
            lines[-1] = lines[-1]._replace(label=f"{lines[-1].label}, {label}")
        else:
            lines.append(line)
    windows = np.unique(np.geomspace(1, 1000, 60).astype(int))
    steers = [result["influence"][window - 1] for window in windows]
    ends = [float(windows[0]), float(windows[-1])]
    theory = [
        Line("TBPTT", windows.tolist(), [steers]),
        Line("exact", ends, [[-6, -6]], theory=True),
        Line("below: towards -1/6", ends, [[0, 0]], theory=True),
    ]
    return [
        Chart("Distance of theta from -1/6", "time steps", lines, floor=1e-5, ceiling=1e3),
        Chart("Influence that steers theta, by window", "window K", theory, log=("x",)),
    ]


_ONLINE = ("rtrl", "ok:2", "kf_rtrl")

BALANCE = Experiment(
    name="balance",
    claim="UORO converges where TBPTT diverges, unless the truncation is far longer than the intrinsic "
    "range of the task.",
    protocol="Influence balancing: a chain of 23 linear units, driven by theta with 10 positive and 13 "
    "negative signs; loss (s_1 - 1)^2 / 2 at every step, theta_0 = 1/2, optimum -1/6. SGD; TBPTT makes one "
    "update per window, with the mean gradient of its steps, the others one per step.",
    source="Tallec & Ollivier, ICLR 2018, section on influence balancing.",
    reported=(
        Reported("UORO", "converges", "Tallec & Ollivier, abstract", True),
        Reported("TBPTT", "diverges unless far longer than the range", "Tallec & Ollivier, abstract", True),
        Reported("truncations of the figure", "1, 10, 100, 200", "Tallec & Ollivier, figure", False),
        Reported("TBPTT-100", "diverges", "Tallec & Ollivier, figure; derived here", False),
        Reported("TBPTT-200", "converges", "Tallec & Ollivier, figure; derived here", False),
        Reported("learning rates", "unknown", "Tallec & Ollivier", False),
        Reported("learning rate of UORO, of TBPTT", "1e-5, 1e-4", "code of Vicol et al., ICML 2021", True),
    ),
    deviations=(
        "Learning rates are ours; TBPTT, which makes fewer updates, has a larger one.",
        "A single parameter does not need factors: OK and KF-RTRL track it exactly, as RTRL does.",
    ),
    scales={
        "quick": {
            "seeds": 5,
            "learners": {
                **dict.fromkeys(_ONLINE, (1e-4, 10_000)),
                "uoro": (1e-5, 60_000),
                **{f"tbptt:{window}": (1e-3, 120_000) for window in (1, 10, 100, 200)},
            },
        },
        "day": {
            "seeds": 20,
            "learners": {
                **dict.fromkeys(_ONLINE, (1e-5, 500_000)),
                "uoro": (1e-5, 500_000),
                **{f"tbptt:{window}": (1e-4, 2_000_000) for window in (1, 10, 100, 200)},
            },
        },
        "full": {
            "seeds": 20,
            "learners": {
                **dict.fromkeys(_ONLINE, (1e-5, 500_000)),
                "uoro": (1e-5, 500_000),
                **{f"tbptt:{window}": (1e-4, 2_000_000) for window in (1, 10, 50, 100, 110, 120, 200)},
            },
        },
    },
    run=_run,
    check=_check,
    table=_table,
    charts=_charts,
)  # fmt: skip
