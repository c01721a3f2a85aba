"""Encoder: credit to the layer before the recurrent one, outside of the cell or inside."""

from typing import Any

from foretrace.experiments._agents import ends, lines, lives
from foretrace.experiments._experiment import Experiment, Finding, Reported, mean_spread
from foretrace.plotting import Chart
from foretrace.rl import environments


def _run(settings: dict[str, Any], say: Any, part: Any) -> dict[str, Any]:
    world, result = environments.trace_patterning(), {}
    for decay in settings["decays"]:
        for place in ("outside", "inside"):
            label = f"{place}, lambda {decay:g}"
            own = {"encoder_inside": place == "inside", "trace_decay": decay}
            setting = settings["common"] | own
            result[label] = lives(label, world, setting, settings["steps"], settings["seeds"], say, part)
    return result


def _check(result: dict[str, Any]) -> list[Finding]:
    findings = []
    for label, curve in result.items():
        if label.startswith("inside"):
            other = result[label.replace("inside", "outside")]
            ours, theirs = ends(curve), ends(other)
            claim = f"{label}: predicts at least as well as with the encoder outside, within a tenth"
            measured = f"{mean_spread(ours)} against {mean_spread(theirs)}"
            findings.append(Finding(claim, bool(ours.mean() <= 1.1 * theirs.mean()), measured))
    return findings


def _table(result: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = [("encoder", "squared error", "steps")]
    rows += [(label, mean_spread(ends(c)), f"{c['steps'][-1]:,}") for label, c in result.items()]
    return rows


def _charts(result: dict[str, Any]) -> list[Chart]:
    return [Chart("Squared error, trace patterning", "steps", lines(result), ("y",))]


_COMMON = {"agent": "td", "cell": "gru", "hidden": 16, "encoder": 16}

ENCODER = Experiment(
    name="encoder",
    claim="Credit that reaches an encoder through the whole past is worth as much as credit through one "
    "step, or more where traces do not carry it.",
    protocol="Trace patterning: whether three of six signals announce an event 24 to 36 steps later. "
    "TD(lambda) with ObGD and exact RTRL on a GRU; the encoder, a normalised sparse layer, lies "
    "before the cell, where its gradient is that of the present step, or in the cell. The error "
    "is the mean of (v_t - G_t)^2 over the last tenth.",
    source="Ours; trace patterning: Javed et al., JMLR 2023.",
    reported=(
        Reported("credit to an encoder beyond one step", "nobody has it", "Farr et al., 2026", True),
    ),
    deviations=("With lambda 0 the trace carries nothing: all credit over time is the cell's.",),
    scales={
        "quick": {"seeds": 1, "common": _COMMON | {"hidden": 4}, "steps": 40_000, "decays": (0.8,)},
        "day": {"seeds": 3, "common": _COMMON, "steps": 1_000_000, "decays": (0.0, 0.8)},
        "full": {"seeds": 5, "common": _COMMON | {"hidden": 32}, "steps": 4_000_000, "decays": (0.0, 0.8)},
    },
    run=_run,
    check=_check,
    table=_table,
    charts=_charts,
)
