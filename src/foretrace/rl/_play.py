"""An agent in a world of Gymnasium: one jitted call per step, and every episode from a seed of its own."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from foretrace._xla import in_one_kernel, jit_unoptimised
from foretrace.rl._adapters import Played
from foretrace.rl._agent import Agent, AgentState
from foretrace.tasks import Metric
from foretrace.training import NonFiniteError, all_finite, floats


class Playing(NamedTuple):
    """The names of what a record of `play` shows."""

    loss_metric: Metric = Metric("td_error", "magnitude of the error", is_loss=True)
    shown: tuple[Metric, ...] = (Metric("return", "return of an episode"),)


def play(
    agent: Agent,
    env: Any,
    world: Played,
    seed: int,
    *,
    steps: int,
    chunk: int,
    start: tuple[AgentState, dict[str, Any]] | None = None,
    skip: bool = False,
) -> Iterator[tuple[AgentState, dict[str, Any]]]:
    """Plays whole episodes.

    Episode n starts from `env.reset(seed=seed + n)`, so that a run that goes on from a record sees what it
    would have met: with an environment whose randomness is that of its seed, bit for bit.

    Args:
        agent: built for this world.
        env: like `gymnasium.Env`.
        world: what `from_gymnasium(env)` gave.
        seed: of everything random.
        steps: calls of the agent after which no new episode begins.
        chunk: about how many calls lie between two records.
        start: the agent's state and the record to go on from; the beginning unless given.
        skip: whether an episode ends at a number that is not finite, instead of the run.

    Yields:
        The start, then state and record, which are like those of `live`, at the first end of an episode
        after a chunk.

    Raises:
        NonFiniteError: a number was not finite, and not to be skipped.
    """
    first: dict[str, Any] = {"step": 0, "seconds": 0.0, "games": 0}
    state, last = start or (jit_unoptimised(agent.init)(jax.random.key(seed)), first)
    yield state, last
    nothing = np.zeros(world.observations, np.float32)
    act = jax.jit(in_one_kernel(agent.act)).lower(state, nothing, 0.0, False, False, True).compile()
    step, games, seconds = last["step"], last["games"], last["seconds"]
    begin, errors, returns, skipped = time.perf_counter(), [], [], 0
    while step < steps:
        observation, _ = env.reset(seed=seed + games)
        call, total, over = (0.0, False, False, True), 0.0, False
        while True:
            percept = world.observe(observation)
            if not (np.isfinite(percept).all() and np.isfinite(call[0])):
                if not skip:
                    raise NonFiniteError(
                        f"rewards and observations must be finite; got one that is not at step {step:,}; "
                        "mend the environment, or skip what is not finite."
                    )
                skipped += 1
                break
            state, action = act(state, percept, *call)
            errors.append(state.error)
            step += 1
            if over:
                returns.append(total)
                break
            observation, reward, terminated, truncated, _ = env.step(world.act(action))
            call, over = (float(reward), bool(terminated), bool(truncated), False), terminated or truncated
            total += float(reward)
        games += 1
        if step < last["step"] + chunk and step < steps:
            continue
        if not all_finite(floats(state)):
            raise NonFiniteError(
                f"parameters, traces and influence must be finite; got one that is not before step "
                f"{step:,}; begin anew with another step rule, a smaller rate or a larger kappa."
            )
        record: dict[str, Any] = {"step": step, "seconds": round(seconds + time.perf_counter() - begin, 3)}
        record |= {"td_error": float(np.mean(np.abs(errors))), "episodes": len(returns), "games": games}
        if returns or "return" in last:
            record["return"] = float(np.mean(returns)) if returns else last["return"]
        if skip:
            record["skipped"] = skipped
        yield state, record
        last, errors, returns, skipped = record, [], [], 0
