"""Named, permanent speed settings of agents: a step of all of it, beside the same one with TBPTT(1)."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace import rl
from foretrace._xla import as_numbers
from foretrace.experiments._timing import Loop, compiled, spread, state_bytes, take_turns
from foretrace.rl.environments import Discrete

_REFERENCE = "tbptt:1"
_CALLS = 200  # of one run


class AgentSetting(NamedTuple):
    """An agent, and the learners that are timed as its memory.

    Attributes:
        observations: length of an observation.
        actions: number of actions.
        setting: of the agent, but for its learner.
        learners: names of learners.
    """

    observations: int
    actions: int
    setting: rl.Setting
    learners: tuple[str, ...]


AGENT_SETTINGS = {
    "agent-mingru-192": AgentSetting(64, 4, rl.Setting(cell="mingru", hidden=192), ("rtrl",)),
    "agent-gru-64": AgentSetting(
        8, 4, rl.Setting(cell="gru", hidden=64), ("low_rank:4", "low_rank:4/4", "ok:4/8")
    ),
    "agent-gru-16": AgentSetting(
        8, 4, rl.Setting(cell="gru", hidden=16), ("rtrl", "rtrl/8", "low_rank:2/4")
    ),
}


def measure_agents(name: str, repeats: int = 7, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Times one agent with each of its learners in a scan, and with the first one call by call.

    Args:
        name: one of `AGENT_SETTINGS`.
        repeats: runs of every loop, taken in turns.
        say: called with one line per learner.

    Returns:
        A record like that of `measure_setting`; a step acts, observes noise, and learns. A call is one of
        `rl.jit_act`, whose action is waited for; an empty call hands the same state back.
    """
    observations, actions, setting, learners = AGENT_SETTINGS[name]
    texts = tuple(dict.fromkeys((*learners, _REFERENCE)))
    loops = {text: _loop(observations, actions, setting, text) for text in texts}
    agent = _agent(observations, actions, setting, learners[0])
    loops |= {f"{learners[0]}, {what}": loop for what, loop in _calls(agent, observations).items()}
    times = take_turns(loops, repeats)
    reference, rows = float(np.median(times[_REFERENCE])), []
    for text in loops:
        row = {
            "learner": text,
            **spread(times[text]),
            "per_reference": float(np.median(times[text])) / reference,
        }
        row |= {
            "state_bytes": state_bytes(as_numbers(loops[text].state)[0]),
            "compile_s": loops[text].compile_seconds,
        }
        rows.append(row)
        say(
            f"{name:16} {text:21} {row['us']:10.1f} us/step ({row['us_min']:.1f} to {row['us_max']:.1f}), "
            f"{1e6 / row['us']:,.0f} steps/s, {row['per_reference']:.2f} times {_REFERENCE}"
        )
    return {
        "setting": name,
        "agent": setting.agent,
        "cell": setting.cell,
        "hidden": setting.hidden,
        "rows": rows,
    }


def _agent(observations: int, actions: int, setting: rl.Setting, learner: str) -> rl.Agent:
    return rl.build(
        dataclasses.replace(setting, learner=learner), rl.Spaces(observations, Discrete(actions)), 0.99
    )


def _calls(agent: rl.Agent, observations: int) -> dict[str, Loop]:
    """Calls of a step, one by one, as with Gymnasium, and of a function that does nothing."""

    def loop(function):
        def run(state):
            for _ in range(_CALLS):
                state, action = function(state, np.ones(observations, np.float32), 0.5, False, False, False)
                np.asarray(action)
            return state

        start = time.perf_counter()
        state = run(agent.init(jax.random.key(0)))
        return Loop(run, state, _CALLS, time.perf_counter() - start)

    empty = jax.jit(lambda state, *percept: (state, state.action), donate_argnums=0)
    return {"a call": loop(rl.jit_act(agent)), "an empty call": loop(empty)}


def _loop(observations: int, actions: int, setting: rl.Setting, learner: str) -> Loop:
    """The agent in a stream of noise that pays for nothing, in a scan."""
    agent = _agent(observations, actions, setting, learner)
    noise = jax.random.normal(jax.random.key(1), (64, observations))

    def repeat(carry, count):
        def step(carry, index):
            state, time = carry
            observation = noise[time % len(noise)]
            no = jnp.zeros((), bool)
            state, _ = agent.act(state, observation, observation[0], no, no, time == 0)
            return (state, time + 1), None

        return jax.lax.scan(step, carry, length=16 * count)[0]

    return compiled(repeat, (agent.init(jax.random.key(0)), jnp.int32(0)), 16)
