"""Lives of agents for experiments: every setting and seed is a part of its own."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from foretrace import rl
from foretrace.plotting import Line
from foretrace.rl.environments import Environment

_CHUNKS = 20


def lives(
    name: str,
    environment: Environment,
    setting: dict[str, Any],
    steps: int,
    seeds: int,
    say: Callable[[str], None],
    part: Any,
    metric: str | None = None,
) -> dict[str, Any]:
    """Lets an agent live once per seed.

    Args:
        name: of this setting, for the parts that are kept.
        environment: where.
        setting: entries of `rl.Setting`.
        steps: calls of the agent.
        seeds: number of lives.
        say: called with a line at the end.
        part: keeps each life.
        metric: its name in the records; success, or the return, or the squared error of predictions,
            whichever comes first, unless given.

    Returns:
        `steps` at the end of each of twenty chunks, and `values` of the metric, (seeds, chunks).
    """
    living = _living(environment, setting, steps)
    metric = metric or (*living.shown, living.loss_metric)[0].name

    def one(seed):
        records = [record for _, record in rl.live(living, jax.random.key(seed), _CHUNKS)][1:]
        return {
            "steps": [record["step"] for record in records],
            "values": [record.get(metric, float("nan")) for record in records],
        }

    curves = [part(f"{name}, seed {seed}", lambda seed=seed: one(seed)) for seed in range(seeds)]
    result = {"steps": curves[0]["steps"], "values": [curve["values"] for curve in curves]}
    say(f"{name}: {metric} {np.mean(ends(result)):.3g} over {seeds} seeds after {steps:,} steps")
    return result


def grown(environment: Environment, setting: dict[str, Any], steps: int, seed: int) -> rl.AgentState:
    """The agent at the end of the life that `lives` gives it with this seed."""
    *_, (life, _) = rl.live(_living(environment, setting, steps), jax.random.key(seed), _CHUNKS)
    return life.agent


def _living(environment: Environment, setting: dict[str, Any], steps: int) -> rl.Living:
    chosen = rl.Setting(**setting)
    agent = rl.build(chosen, environment, environment.discount)
    discount = environment.discount if chosen.discount is None else chosen.discount
    return rl.living(agent, environment, steps=max(1, steps // _CHUNKS), discount=discount)


def ends(curve: dict[str, Any]) -> np.ndarray:
    """Mean of every seed over the last tenth of its life, (seeds,)."""
    return np.array(curve["values"], float)[:, -_CHUNKS // 10 :].mean(axis=1)


def lines(curves: dict[str, dict[str, Any]]) -> list[Line]:
    """A line per setting."""
    return [
        Line(label, curve["steps"], np.array(curve["values"], float)) for label, curve in curves.items()
    ]
