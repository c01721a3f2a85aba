"""Trace conditioning: an event foretold from a signal that was seen many steps before."""

from typing import Any

import numpy as np

from foretrace.experiments._agents import ends, lines, lives
from foretrace.experiments._experiment import Experiment, Finding, Reported, mean_spread
from foretrace.plotting import Chart
from foretrace.rl import environments


def _run(settings: dict[str, Any], say: Any, part: Any) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for isi in settings["isi"]:
        world = environments.trace_conditioning(isi)
        result[str(isi)] = {
            label: lives(
                f"ISI {isi}, {label}",
                world,
                settings["common"] | own,
                settings["steps"],
                settings["seeds"],
                say,
                part,
            )
            for label, own in settings["agents"].items()
        }
    return result


def _check(result: dict[str, Any]) -> list[Finding]:
    findings = []
    for isi, curves in result.items():
        memoryless = ends(curves["no memory"])
        for label, curve in curves.items():
            if "rtrl" in label:
                error = ends(curve)
                claim = f"ISI {isi}: {label} predicts better than without a memory"
                measured = f"{mean_spread(error)} against {mean_spread(memoryless)}"
                findings.append(Finding(claim, bool(error.mean() < memoryless.mean()), measured))
    return findings


def _table(result: dict[str, Any]) -> list[tuple[str, ...]]:
    labels = list(next(iter(result.values())))
    rows = [("agent", *(f"ISI {isi}" for isi in result))]
    for label in labels:
        rows.append((label, *(mean_spread(ends(curves[label])) for curves in result.values())))
    return rows


def _charts(result: dict[str, Any]) -> list[Chart]:
    return [
        Chart(
            f"Squared error, ISI {isi}", "steps", lines(curves), ("y",), float(np.min(_least(curves)) / 2)
        )
        for isi, curves in result.items()
    ]


def _least(curves: dict[str, Any]) -> list[float]:
    return [float(np.min(curve["values"])) for curve in curves.values()]


_AGENTS = {
    "RTU, rtrl": {"cell": "rtu"},
    "RTU, immediate": {"cell": "rtu", "learner": "immediate"},
    "no memory": {"cell": "rtu", "learner": "frozen", "hidden": 1},
}

_ALL = {"agents": _AGENTS}
_COMMON = {"agent": "td", "trace_decay": 0.95, "hidden": 192}

TRACE_CONDITIONING = Experiment(
    name="trace-conditioning",
    claim="A prediction that reaches over tens of steps is learned online by exact gradients, where "
    "credit through one step is worse.",
    protocol="Trace conditioning with ten distractors, TD(lambda) with ObGD, one stream; gamma 1 - 1 / "
    "ISI. The error is the mean of (v_t - G_t)^2 over the last tenth of the steps, G from the "
    "stream as it came.",
    source="Rafiee et al., Adaptive Behavior 2022; Farr, Reddi, D'Eramo, Peters, arXiv 2605.24709, 2026.",
    reported=(
        Reported("ISI 20, RTU, RTRL, lambda .95", ".032", "Farr et al., 2026", True),
        Reported("ISI 40, RTU, RTRL, lambda .95", ".059", "Farr et al., 2026", True),
        Reported("ISI 20, RTU, TBPTT(1), lambda .9 / 1", ".18 / .07", "Farr et al., 2026", True),
        Reported("ISI 80", "unsolved by all", "Farr et al., 2026", True),
    ),
    deviations=(
        "No encoder, and no layer after the recurrent one.",
        "`no memory` is one pair of recurrent units that do not learn, below a head that does.",
    ),
    scales={
        "quick": {"seeds": 1, "common": _COMMON | {"hidden": 16}, "steps": 100_000, "isi": (10,)} | _ALL,
        "day": {"seeds": 3, "common": _COMMON | {"hidden": 96}, "steps": 2_000_000, "isi": (10, 20, 40, 80)}
        | _ALL,
        "full": {"seeds": 3, "common": _COMMON, "steps": 2_000_000, "isi": (10, 20, 40, 80)} | _ALL,
    },
    run=_run,
    check=_check,
    table=_table,
    charts=_charts,
)
