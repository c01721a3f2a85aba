"""T-maze: a sign that has to be remembered to the end of a corridor, by agents that learn at every step."""

from typing import Any

from foretrace.experiments._agents import ends, lines, lives
from foretrace.experiments._experiment import Experiment, Finding, Reported, mean_spread
from foretrace.plotting import Chart
from foretrace.rl import environments

# Mean success over the last 400 episodes, of three seeds: the best of all learners, by length.
_PUBLISHED = {10: 0.998, 20: 0.837, 40: 0.605}


def _run(settings: dict[str, Any], say: Any, part: Any) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for length, (steps, agents) in settings["lengths"].items():
        world = environments.t_maze(int(length))
        result[length] = {
            label: lives(
                f"N = {length}, {label}",
                world,
                settings["common"] | own,
                steps,
                settings["seeds"],
                say,
                part,
            )
            for label, own in agents.items()
        }
    return result


def _check(result: dict[str, Any]) -> list[Finding]:
    findings = []
    for length, curves in result.items():
        goal = min(_PUBLISHED.get(int(length), 0.9), 0.99)
        for label, curve in curves.items():
            success, measured = ends(curve), mean_spread(ends(curve))
            if "immediate" not in label:
                claim = f"N = {length}: {label} reaches {goal:g}"
                findings.append(Finding(claim, bool(success.mean() >= goal), measured))
            elif other := curves.get(label.replace("immediate", "rtrl")):
                claim = f"N = {length}: {label} is no better than with exact gradients"
                holds = success.mean() <= ends(other).mean() + 0.02
                findings.append(Finding(claim, bool(holds), measured))
    return findings


def _table(result: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = [("agent", "N", "success", "steps")]
    for length, curves in result.items():
        for label, curve in curves.items():
            rows.append((label, str(length), mean_spread(ends(curve)), f"{curve['steps'][-1]:,}"))
    return rows


def _charts(result: dict[str, Any]) -> list[Chart]:
    return [
        Chart(f"Success, N = {length}", "steps", lines(curves), (), 0.0, 1.05)
        for length, curves in result.items()
    ]


_MINGRU = {"minGRU, rtrl": {}}
_IMMEDIATE = {"minGRU, immediate": {"learner": "immediate"}}
_DENSE = {"GRU of 16, rtrl": {"cell": "gru", "hidden": 16, "learner": "rtrl/8"}}
_COMMON = {"rule": "adaptive_obgd", "entropy": 0.05, "trace_decay": 0.95, "hidden": 32}

_ALL = _MINGRU | _DENSE | _IMMEDIATE

T_MAZE = Experiment(
    name="t-maze",
    claim="An agent that updates at every step, with exact gradients through its whole past, learns to "
    "remember a sign to the end of a corridor, and farther than published agents do.",
    protocol="T-maze with rewards 4, -0.4 and -0.1 and a limit of 2 N steps; stream AC(lambda) with "
    "AdaptiveObGD, one stream, separate networks for policy and value. Success is the mean over "
    "the episodes that end in the last tenth of the steps.",
    source="Yi & Wang, 2026 (rewards, lengths); Farr et al., arXiv 2605.24709 (the agent).",
    reported=(
        Reported("N = 10, exact, tanh RNN", ".998", "Yi & Wang, logs of three seeds", True),
        Reported("N = 20, exact, RTU", ".837", "Yi & Wang, logs of three seeds", True),
        Reported("N = 40, exact, RTU", ".605", "Yi & Wang, logs of three seeds", True),
        Reported("N = 10, 20, 40, TBPTT(2N)", ".614, .193, .169", "Yi & Wang, logs of three seeds", True),
    ),
    deviations=(
        "Theirs is TD(0) with Adam in 16 lanes, 60k, 100k and 150k steps of each; ours one stream with "
        "traces, and a learning rate of its own at every step.",
        "Chance is .5: an agent that always turns to the same side is right half of the time.",
    ),
    scales={
        "quick": {
            "seeds": 1,
            "common": _COMMON | {"hidden": 16},
            "lengths": {"4": (40_000, {"minGRU, rtrl": {}, "minGRU, immediate": {"learner": "immediate"}})},
        },
        "day": {
            "seeds": 3,
            "common": _COMMON,
            "lengths": {
                "10": (300_000, _ALL),
                "20": (500_000, _ALL),
                "40": (1_000_000, {"minGRU, rtrl": {"entropy": 0.1}}),
            },
        },
        "full": {
            "seeds": 3,
            "common": _COMMON,
            "lengths": {
                "10": (1_000_000, _ALL),
                "20": (1_600_000, _ALL),
                "40": (4_000_000, {label: own | {"entropy": 0.1} for label, own in _ALL.items()}),
            },
        },
    },
    run=_run,
    check=_check,
    table=_table,
    charts=_charts,
)
