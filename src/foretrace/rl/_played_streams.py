"""What the networks of a frozen agent read in a world of Gymnasium, where a life is led call by call."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from foretrace._checks import check_positive_int
from foretrace._types import Cell, Learner
from foretrace.rl._adapters import from_gymnasium
from foretrace.rl._agent import Agent, AgentState
from foretrace.rl._steps import StepRule
from foretrace.rl._streams import Stream, frozen, noted, observer, streams_from


def played_streams(
    make: Callable[[Callable[[Cell], Learner], StepRule], Agent],
    env: Any,
    state: AgentState,
    *,
    steps: int,
    seed: int,
    lives: int = 1,
) -> dict[str, Stream]:
    """As `streams_of`, in a world that is no pure function: the agent lives on there, call by call.

    Args:
        make: `(learner, rule) -> agent` with that learner in every network and that rule for each of them.
        env: like `gymnasium.Env`; episode n of life m starts from `env.reset(seed=seed + m + n lives)`.
        state: of the same agent with any learner and rule; every life has its parameters and statistics.
        steps: calls of the agent.
        seed: of everything random.
        lives: their number.

    Returns:
        A stream for each network, by its name.

    Raises:
        TypeError, ValueError: a number is not an int >= 1, or a space is not supported.

    Example:
        >>> import jax, foretrace as ft, gymnasium
        >>> from foretrace import rl
        >>> env = gymnasium.make("CartPole-v1")
        >>> def make(learner, rule=None):
        ...     body = rl.Body(lambda inputs: ft.cells.gru(hidden=4, inputs=inputs), learner)
        ...     return rl.stream_q(rl.from_gymnasium(env), body, rule=rule)
        >>> state = make(ft.rtrl).init(jax.random.key(0))
        >>> rl.played_streams(make, env, state, steps=20, seed=0)["value"].credits.shape
        (20, 1, 4)
    """
    check_positive_int("steps", steps, "400 is usual")
    check_positive_int("lives", lives, "2 is usual")
    agent, world = observer(make), from_gymnasium(env)

    @jax.jit
    def act(mind, *percept):
        mind, action = agent.act(mind, *percept)
        return mind, action, noted(mind)

    def live(life):
        mind, notes, games = frozen(agent.init(jax.random.key(seed + life)), state), [], 0
        while True:
            observation, _ = env.reset(seed=seed + life + games * lives)
            call, over, games = (0.0, False, False, True), False, games + 1
            while True:
                mind, action, note = act(mind, world.observe(observation), *call)
                notes.append(note)
                if len(notes) > steps:  # the gradient of a step is taken in the next one
                    return jax.tree.map(lambda *leaves: np.stack(leaves), *notes)
                if over:
                    break
                observation, reward, terminated, truncated, _ = env.step(world.act(action))
                call = float(reward), bool(terminated), bool(truncated), False
                over = terminated or truncated

    notes = jax.tree.map(lambda *leaves: np.stack(leaves), *[live(life) for life in range(lives)])
    return streams_from(agent, state.learned.params, notes)
