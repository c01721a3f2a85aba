"""Repeat previous and repeat first: the suits of a deck of cards, to be said again."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from foretrace._checks import UserError, check_positive_int
from foretrace.rl.environments._environment import Discrete, Environment, EnvironmentSpec, Outcome

_CARDS, _SUITS = 52, 4


class DeckState(NamedTuple):
    """Cards that were dealt, and the suits of the whole deck in its order."""

    dealt: Int[Array, ""]
    suits: Int[Array, " cards"]


def repeat_previous(k: int = 4) -> Environment:
    """Name at every step the suit of the k-th newest card: 1 is the newest one, which is in sight.

    A deck of 52 is dealt card by card; the observation is the suit of the newest, one of four. Once k cards
    were seen an action is worth 1 / (52 - k), or as much less if it is wrong; before it is worth 0. The
    episode ends when the last card is dealt, after 51 steps.

    Args:
        k: how far back to look.

    Returns:
        The environment, with four actions.

    Raises:
        TypeError, ValueError: `k` is not an int from 1 to 51.

    Source:
        Morad et al., POPGym: benchmarking partially observable reinforcement learning, ICLR 2023,
        RepeatPreviousEasy.
    """
    if check_positive_int("k", k, "4 is usual") >= _CARDS:
        raise UserError(f"k must be below {_CARDS}, the cards of a deck; got {k}; 4 is usual.")
    return _dealt(lambda state: state.suits[jnp.maximum(state.dealt - k, 0)], k)


def repeat_first() -> Environment:
    """Name at every step the suit of the first card.

    A deck of 52 is dealt card by card; the observation is the suit of the newest, one of four. Each of 51
    actions is worth 1 / 51, or as much less if it is wrong. The episode ends when the last card is dealt.

    Returns:
        The environment, with four actions.

    Source:
        Morad et al., POPGym: benchmarking partially observable reinforcement learning, ICLR 2023,
        RepeatFirstEasy.
    """
    return _dealt(lambda state: state.suits[0], 1)


def _dealt(wanted: Callable[[DeckState], Any], first: int) -> Environment:
    """A deck dealt card by card, with a suit to name as soon as `first` cards were seen."""

    def observe(state):
        return jax.nn.one_hot(state.suits[state.dealt - 1], _SUITS)

    def reset(key):
        state = DeckState(
            jnp.int32(1), jax.random.permutation(key, jnp.arange(_CARDS, dtype=jnp.int32) % _SUITS)
        )
        return state, observe(state)

    def step(state: DeckState, action: Any) -> tuple[DeckState, Outcome]:
        worth = 1 / (_CARDS - first)
        reward = jnp.where(action == wanted(state), worth, -worth)
        reward = jnp.where(state.dealt >= first, reward, 0.0)
        after = state._replace(dealt=state.dealt + 1)
        return after, Outcome(observe(after), reward, after.dealt == _CARDS, jnp.zeros((), bool))

    return Environment(reset, step, _SUITS, Discrete(_SUITS), best=1.0)


SPECS = (
    EnvironmentSpec(
        "repeat_previous", repeat_previous, "repeat_previous: say the suit of the `k`-th newest card."
    ),
    EnvironmentSpec("repeat_first", repeat_first, "repeat_first: say the suit of the first card."),
)
