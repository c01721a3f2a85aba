"""Noise and return: how much variance of its gradient an agent can bear, beside what bias costs it."""

from typing import Any

import jax
import numpy as np

from foretrace import learners, rl
from foretrace.experiments._agents import ends, grown, lives
from foretrace.experiments._compare import compare
from foretrace.experiments._experiment import Experiment, Finding, Reported, mean_spread
from foretrace.plotting import Chart, Line
from foretrace.rl import environments
from foretrace.rl.environments import Environment

_EXACT = "rtrl"
_NETWORKS = ("policy", "value")
_SOLVED = 0.9  # of the largest return; to turn the wrong way once in twelve episodes is below it


def _run(settings: dict[str, Any], say: Any, part: Any) -> dict[str, Any]:
    world, names, common = environments.t_maze(settings["length"]), settings["learners"], settings["common"]

    def life(name):
        own = common | {"learner": name}
        return lives(name, world, own, settings["steps"], settings["seeds"], say, part, "return")

    def errors(seed):
        return part(f"noise, seed {seed}", lambda: _noise(world, settings, seed))

    noise = [errors(seed) for seed in range(settings["networks"])]
    say("noise: " + ", ".join(f"{name} {_mean(noise, name, 'policy'):.2g}" for name in names[1:]))
    return {
        "best": world.best,
        "lives": {name: life(name) for name in names},
        "noise": {name: {n: _mean(noise, name, n) for n in _NETWORKS} for name in names},
    }


def _noise(world: Environment, settings: dict[str, Any], seed: int) -> dict[str, dict[str, float]]:
    """Relative squared errors of every learner's gradients, on the networks that exact ones trained."""
    setting = settings["common"] | {"learner": _EXACT}
    state = grown(world, setting, settings["steps"], seed)

    def make(learner, rule):
        return rl.build(rl.Setting(**setting), world, world.discount, learner=learner, rule=rule)

    streams = rl.streams_of(
        make, world, state, steps=settings["noise_steps"], key=jax.random.key(seed), lives=2
    )
    errors: dict[str, dict[str, float]] = {name: {} for name in settings["learners"]}
    for network, (cell, params, xs, credits, restarts) in streams.items():
        members = {name: learners.parse(name).build(cell) for name in errors}
        compared = compare(cell, members, params, xs, credits, restarts=restarts, draws=settings["draws"])
        for name in errors:
            errors[name][network] = float(compared.values[name][0].mean())
    return errors


def _mean(noise: list[dict[str, dict[str, float]]], name: str, network: str) -> float:
    return float(np.mean([errors[name][network] for errors in noise]))


def _unbiased(result: dict[str, Any]) -> dict[str, float]:
    """The larger variance of the two networks, of every learner whose gradient is right in the mean."""
    noise = {name: max(errors.values()) for name, errors in result["noise"].items()}
    return {name: error for name, error in noise.items() if learners.parse(name).spec.unbiased}


def _bias(name: str) -> str:
    return "" if learners.parse(name).spec.unbiased else ", biased"


def _solved(result: dict[str, Any], names: Any) -> tuple[int, int]:
    """How many lives of these learners ended with the maze solved, and their number."""
    returns = np.concatenate([ends(result["lives"][name]) for name in names])
    return int(np.sum(returns >= _SOLVED * result["best"])), len(returns)


def _check(result: dict[str, Any]) -> list[Finding]:
    unbiased, everyone = _unbiased(result), result["noise"]
    least = {name: max(everyone[name].values()) for name in everyone if name not in unbiased}
    quiet = [name for name, error in unbiased.items() if error < 1 and name != _EXACT]
    loud = [name for name, error in unbiased.items() if error >= 1]
    louder = [name for name, error in unbiased.items() if error > max(least.values())]

    def compared(claim, ours, theirs, slack):
        (a, of_a), (b, of_b) = _solved(result, ours), _solved(result, theirs)
        holds = a / of_a >= b / of_b - slack
        return Finding(claim, holds, f"{a} of {of_a} lives solve the maze, against {b} of {of_b}")

    quiet_claim = f"a variance below 1 costs nothing: {', '.join(quiet)} solve it as often as {_EXACT}"
    loud_claim = f"more noise, fewer solve it: {', '.join(loud)} no more often than those below 1"
    bias_claim = (
        f"bias costs more than variance: {', '.join(louder)} solve it more often than {', '.join(least)}, "
        "whose squared error is smaller"
    )
    return [
        compared(quiet_claim, quiet, [_EXACT], 0.1),
        compared(loud_claim, quiet, loud, 0.0),
        compared(bias_claim, louder, least, -0.1),
    ]


def _table(result: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = [("learner", "error, policy", "error, value", "return", "solved")]
    for name, errors in result["noise"].items():
        solved, number = _solved(result, [name])
        policy, value = (f"{errors[network]:.2g}" if name != _EXACT else "0" for network in _NETWORKS)
        end = mean_spread(ends(result["lives"][name]))
        rows.append((name + _bias(name), policy, value, end, f"{solved} of {number}"))
    return rows


def _charts(result: dict[str, Any]) -> list[Chart]:
    return [_chart(result, network) for network in _NETWORKS]


def _chart(result: dict[str, Any], network: str) -> Chart:
    ours = {name: errors[network] for name, errors in result["noise"].items() if name != _EXACT}
    end = {name: float(np.mean(ends(result["lives"][name]))) for name in (_EXACT, *ours)}
    span = [min(ours.values()), max(ours.values())]
    exact = Line("exact (rtrl)", span, [[end[_EXACT]] * 2], theory=True)
    points = [Line(name + _bias(name), [error], [[end[name]]]) for name, error in ours.items()]
    x = f"relative squared error of the {network}'s gradient"
    return Chart("Return, last tenth", x, [*points, exact], ("x",), None, result["best"], points=True)


_COMMON = {"rule": "adaptive_obgd", "cell": "gru", "hidden": 16, "entropy": 0.1, "trace_decay": 0.9}
_FEW = (_EXACT, "ok:1", "uoro", "immediate")
_ALL = (
    _EXACT,
    "ok:4",
    "ok:2",
    "ok:1",
    "low_rank:2/4",
    "low_rank:1/4",
    "kf_rtrl",
    "ktp:4",
    "uoro/8",
    "uoro",
    "rolling_tbptt:4",
    "immediate",
)

NOISE_RETURN = Experiment(
    name="noise-return",
    claim="Noise in a gradient that is right in the mean costs an agent nothing up to a variance of the "
    "squared gradient itself; a bias whose squared error is smaller costs more than noise far above that.",
    protocol="T-maze, stream AC(lambda) with AdaptiveObGD, GRU of 16 units; agents that differ in their "
    "learner alone. The return is that of the last tenth of a life; a maze is solved at .9 of the largest "
    "one. Squared errors of the gradients of policy and value, relative to the exact ones, are measured "
    "along lives of agents that exact gradients trained, their parameters frozen.",
    source="Ours.",
    reported=(
        Reported("return against a learner's variance", "nobody has it", "no paper that we know of", True),
    ),
    deviations=(
        "Length, lambda and entropy were chosen on seeds 0 to 3, so that exact gradients solve the maze.",
        "The noise is that of networks that remember already; before they do, it is another.",
        "A life either solves the maze or turns blindly, so that few seeds tell little of a learner alone: "
        "claims are about groups of them.",
    ),
    scales={
        "quick": {
            "seeds": 1,
            "networks": 1,
            "noise_steps": 200,
            "draws": 8,
            "length": 5,
            "steps": 60_000,
            "common": _COMMON | {"entropy": 0.05, "trace_decay": 0.8},
            "learners": _FEW,
        },
        "day": {
            "seeds": 6,
            "networks": 2,
            "noise_steps": 600,
            "draws": 16,
            "length": 8,
            "steps": 120_000,
            "common": _COMMON,
            "learners": _ALL,
        },
        "full": {
            "seeds": 30,
            "networks": 10,
            "noise_steps": 2_000,
            "draws": 32,
            "length": 10,
            "steps": 500_000,
            "common": _COMMON,
            "learners": _ALL,
        },
    },
    run=_run,
    check=_check,
    table=_table,
    charts=_charts,
)
