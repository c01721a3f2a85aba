"""Repeat: suits of cards said again, the first one or that of some steps before."""

from typing import Any

from foretrace.experiments._agents import ends, lines, lives
from foretrace.experiments._experiment import Experiment, Finding, Reported, mean_spread
from foretrace.plotting import Chart
from foretrace.rl.environments import ENVIRONMENTS


def _run(settings: dict[str, Any], say: Any, part: Any) -> dict[str, Any]:
    return {
        name: {
            label: lives(
                f"{name}, {label}",
                ENVIRONMENTS[name].make(),
                settings["common"] | own,
                settings["steps"],
                settings["seeds"],
                say,
                part,
            )
            for label, own in settings["agents"].items()
        }
        for name in settings["worlds"]
    }


# The best that was published, after ten million steps.
_PUBLISHED = {"repeat_previous": 0.99, "repeat_first": 0.48}
_LONG = 1_000_000


def _check(result: dict[str, Any]) -> list[Finding]:
    findings = []
    for name, curves in result.items():
        scores = {label: _score(curve) for label, curve in curves.items()}
        for label, score in scores.items():
            if label.endswith("immediate"):
                continue
            # The suit in sight does not help: what is said without a memory is right by chance.
            claim = f"{name}: {label} is better than chance"
            findings.append(Finding(claim, bool(score.mean() > 0.3), mean_spread(score)))
            other = label.replace("rtrl", "immediate")
            if other in scores:
                measured = f"{mean_spread(score)} against {mean_spread(scores[other])}"
                claim = f"{name}: {label} scores more than {other}"
                findings.append(Finding(claim, bool(score.mean() > scores[other].mean()), measured))
            if curves[label]["steps"][-1] >= _LONG:
                claim = f"{name}: {label} reaches the published best, {_PUBLISHED[name]}"
                enough = bool(score.mean() >= _PUBLISHED[name])
                findings.append(Finding(claim, enough, mean_spread(score)))
    return findings


def _score(curve: dict[str, Any]) -> Any:
    """Of every seed, from 0 to 1."""
    return (ends(curve) + 1) / 2


def _table(result: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = [("agent", "world", "score", "steps")]
    for name, curves in result.items():
        for label, curve in curves.items():
            rows.append((label, name, mean_spread(_score(curve)), f"{curve['steps'][-1]:,}"))
    return rows


def _charts(result: dict[str, Any]) -> list[Chart]:
    return [
        Chart(f"Return, {name}", "steps", lines(curves), (), -1.0, 1.05) for name, curves in result.items()
    ]


_AGENTS = {
    "RTU, rtrl": {"cell": "rtu"},
    "minGRU, rtrl": {"cell": "mingru"},
    "RTU, immediate": {"cell": "rtu", "learner": "immediate"},
}
_COMMON = {
    "rule": "adaptive_obgd", "hidden": 64, "trace_decay": 0.95, "entropy": 0.095,
    "kappa": 1.0, "policy_kappa": 1.5,
}  # fmt: skip

REPEAT = Experiment(
    name="repeat",
    claim="An agent that updates at every step learns to say again what it saw four steps before, and "
    "what it saw first.",
    protocol="RepeatPrevious with k = 4 and RepeatFirst, one deck of 52 cards; stream AC(lambda), one "
    "stream. The score is (return + 1) / 2 over the last tenth of the steps: 0 is the least, 1 "
    "the most, .25 chance.",
    source="Morad et al., POPGym, ICLR 2023; Farr, Reddi, D'Eramo, Peters, arXiv 2605.24709, 2026.",
    reported=(
        Reported("RepeatPrevious, streaming / recurrent PPO", ".99 / .81", "Farr et al., 10M frames", True),
        Reported("RepeatFirst, streaming / recurrent PPO", ".48 / .31", "Farr et al., 10M frames", True),
    ),
    deviations=(
        "64 units and no encoder. Rule, lambda and cell were chosen on seed 5, which is none of these.",
    ),
    scales={
        "quick": {
            "seeds": 1,
            "common": _COMMON | {"hidden": 16},
            "steps": 200_000,
            "worlds": ("repeat_previous",),
            "agents": {"RTU, rtrl": {"cell": "rtu"}},
        },
        "day": {
            "seeds": 3,
            "common": _COMMON,
            "steps": 2_000_000,
            "worlds": ("repeat_previous", "repeat_first"),
            "agents": _AGENTS,
        },
        "full": {
            "seeds": 3,
            "common": _COMMON | {"hidden": 192},
            "steps": 10_000_000,
            "worlds": ("repeat_previous", "repeat_first"),
            "agents": _AGENTS,
        },
    },
    run=_run,
    check=_check,
    table=_table,
    charts=_charts,
)
