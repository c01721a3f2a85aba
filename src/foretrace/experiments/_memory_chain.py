"""Memory chain: the longest time over which agents remember a bit, by learner, cell and lambda."""

from typing import Any

import numpy as np

from foretrace.experiments._agents import ends, lives
from foretrace.experiments._experiment import Experiment, Finding, Reported
from foretrace.plotting import Chart, Line
from foretrace.rl import environments

_SOLVED = 0.75  # success at which the return is above .5


def _run(settings: dict[str, Any], say: Any, part: Any) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for label, own in settings["agents"].items():
        for decay in settings["decays"]:
            setting = settings["common"] | own | {"trace_decay": decay}
            success = {}
            for length in settings["lengths"]:
                world = environments.memory_chain(length)
                name = f"L = {length}, {label}, lambda {decay:g}"
                curve = lives(name, world, setting, settings["steps"], settings["seeds"], say, part)
                success[str(length)] = ends(curve).tolist()
            result[f"{label}, lambda {decay:g}"] = success
    return result


def _longest(success: dict[str, list[float]]) -> int:
    """The longest chain that is solved in the mean of all seeds; 0 for none."""
    return max((int(length) for length, values in success.items() if np.mean(values) > _SOLVED), default=0)


def _check(result: dict[str, Any]) -> list[Finding]:
    findings = []
    for label, success in result.items():
        if "immediate" in label:
            continue
        cell, decay = label.split(", ")[0], label.rsplit(", ", 1)[1]
        least = result.get(f"{cell}, immediate, {decay}")
        if least:
            claim = f"{label} remembers at least as long as with the present step alone"
            ours, theirs = _longest(success), _longest(least)
            findings.append(Finding(claim, ours >= theirs, f"L = {ours} against {theirs}"))
    return findings


def _table(result: dict[str, Any]) -> list[tuple[str, ...]]:
    lengths = list(next(iter(result.values())))
    rows = [("agent", "longest solved", *(f"L = {length}" for length in lengths))]
    for label, success in result.items():
        shown = (f"{np.mean(success[length]):.2f}" for length in lengths)
        rows.append((label, str(_longest(success) or "none"), *shown))
    return rows


def _charts(result: dict[str, Any]) -> list[Chart]:
    lines = [
        Line(label, [int(length) for length in success], np.transpose(list(success.values())))
        for label, success in result.items()
    ]
    return [Chart("Success", "length of the chain", lines, ("x2",), 0.0, 1.05)]


_RTRL = {"minGRU, rtrl": {}, "minGRU, immediate": {"learner": "immediate"}}
_MORE = {
    "RTU, rtrl": {"cell": "rtu"},
    "minGRU, rolling_tbptt:16": {"learner": "rolling_tbptt:16"},
    "GRU, low_rank:4": {"cell": "gru", "learner": "low_rank:4"},
    "LSTM, ok:4": {"cell": "lstm", "learner": "ok:4/8"},
    "tanh RNN, rtrl": {"cell": "rnn", "learner": "rtrl/16"},
}
_COMMON = {"agent": "stream_q", "rule": "intentional", "hidden": 64, "scale_observations": False}

MEMORY_CHAIN = Experiment(
    name="memory-chain",
    claim="With values learned by intentional steps and exact gradients an agent remembers a bit over "
    "hundreds of steps; with credit through one step, over what its traces span.",
    protocol="Memory chain of one bit, stream Q(lambda) with intentional steps, one stream, gamma .999. "
    "Solved: a return above .5 in the last tenth of the steps, mean of all seeds.",
    source="Farr, Reddi, D'Eramo, Peters, arXiv 2605.24709, 2026.",
    reported=(
        Reported("RQRC, TBPTT(1)", "16 (lambda .8) to 128 (lambda .995)", "Farr et al., 2026", True),
        Reported("stream RQ, ObGD", "never past 64", "Farr et al., 2026", True),
        Reported("intentional RQ, RTRL", "256 at every lambda", "Farr et al., 2026", True),
    ),
    deviations=(
        "No encoder: the observation has three entries, of which a sparse layer would leave one.",
        "64 units instead of 192 at scale day.",
        "Observations are not scaled: the variance of a cue of one step in hundreds is tiny, and dividing"
        " by it swamps the rest.",
    ),
    scales={
        "quick": {
            "seeds": 1,
            "common": _COMMON | {"hidden": 16, "explore_steps": 2_000},
            "steps": 30_000,
            "lengths": (4, 8),
            "decays": (0.8,),
            "agents": _RTRL,
        },
        "day": {
            "seeds": 3,
            "common": _COMMON,
            "steps": 500_000,
            "lengths": (16, 32, 64, 128, 256),
            "decays": (0.8,),
            "agents": _RTRL,
        },
        "full": {
            "seeds": 3,
            "common": _COMMON | {"hidden": 192},
            "steps": 500_000,
            "lengths": (16, 32, 64, 96, 128, 192, 256),
            "decays": (0.8, 0.9, 0.995),
            "agents": _RTRL | _MORE,
        },
    },
    run=_run,
    check=_check,
    table=_table,
    charts=_charts,
)
