"""Dense error: where gradients through time buy little, beside where they are needed."""

from typing import Any

import jax
import jax.numpy as jnp

from foretrace.experiments._agents import ends, lines, lives
from foretrace.experiments._experiment import Experiment, Finding, Reported, mean_spread
from foretrace.plotting import Chart
from foretrace.rl import environments
from foretrace.rl.environments import Environment, Outcome

_DELAY = 17  # steps, in the equation of the series
_DENSE, _LATE = "next value of a series", "event long after its sign"
_EXACT, _IMMEDIATE = "rtrl", "immediate"


def _mackey_glass() -> Environment:
    """The series x <- 0.9 x + 0.2 d / (1 + d^10), d the value 17 steps before x; its next value."""

    def reset(key):
        past = 1.2 + 0.1 * jax.random.normal(key, (_DELAY + 1,))
        return past, past[:1]

    def step(past: jax.Array, action: Any) -> tuple[jax.Array, Outcome]:
        value = 0.9 * past[:1] + 0.2 * past[-1:] / (1 + past[-1:] ** 10)
        no = jnp.zeros((), bool)
        return jnp.concatenate([value, past[:-1]]), Outcome(value, value[0], no, no)

    return Environment(reset, step, 1, None, discount=0.0)


def _run(settings: dict[str, Any], say: Any, part: Any) -> dict[str, Any]:
    worlds = {
        _DENSE: (_mackey_glass(), {"trace_decay": 0.0}),
        _LATE: (environments.trace_conditioning(10), {"trace_decay": 0.9}),
    }
    return {
        place: {
            learner: lives(
                f"{place}, {learner}",
                world,
                settings["common"] | own | {"learner": learner},
                settings["steps"],
                settings["seeds"],
                say,
                part,
            )
            for learner in (_EXACT, _IMMEDIATE)
        }
        for place, (world, own) in worlds.items()
    }


def _check(result: dict[str, Any]) -> list[Finding]:
    findings = []
    for place, claim, most in (
        (_DENSE, "errors of the present step's gradient are at most half as large again", 1.5),
        (_LATE, "exact gradients take at least a quarter off the error", 1 / 0.75),
    ):
        exact, immediate = (ends(result[place][name]) for name in (_EXACT, _IMMEDIATE))
        ratio = float(immediate.mean() / exact.mean())
        holds = ratio <= most if place == _DENSE else ratio >= most
        findings.append(Finding(f"{place}: {claim}", holds, f"{ratio:.2f} times the error with {_EXACT}"))
    return findings


def _table(result: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = [("world", "gradient", "squared error", "steps")]
    for place, curves in result.items():
        for name, curve in curves.items():
            rows.append((place, name, mean_spread(ends(curve)), f"{curve['steps'][-1]:,}"))
    return rows


def _charts(result: dict[str, Any]) -> list[Chart]:
    return [
        Chart(f"Squared error, {place}", "steps", lines(curves), ("y",)) for place, curves in result.items()
    ]


_COMMON = {"agent": "td", "cell": "gru", "hidden": 16, "rule": "adaptive_obgd"}

DENSE_ERROR = Experiment(
    name="dense-error",
    claim="Where every step has an error of its own, the gradient of that step alone is nearly as good as "
    "the exact one; where the error comes long after its cause, it is not.",
    protocol="Two predictions by a GRU that learns at every step, with exact gradients and with those of "
    "the present step: the next value of the Mackey-Glass series, of which one value is seen at a time "
    "(discount 0), and an event some 10 steps after a signal among distractors (trace conditioning, TD). "
    "The error is the mean of (v_t - G_t)^2 over the last tenth.",
    source="Ours; the finding on series: Shalev-Merin, arXiv 2603.28750, 2026.",
    reported=(
        Reported("gradients through time in chaotic series", "no better", "Shalev-Merin, 2026", True),
    ),
    deviations=("Theirs learns with Adam, ours with AdaptiveObGD, in both worlds alike.",),
    scales={
        "quick": {"seeds": 2, "common": _COMMON, "steps": 60_000},
        "day": {"seeds": 3, "common": _COMMON, "steps": 300_000},
        "full": {"seeds": 10, "common": _COMMON | {"hidden": 32}, "steps": 3_000_000},
    },
    run=_run,
    check=_check,
    table=_table,
    charts=_charts,
)
