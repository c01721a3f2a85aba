"""a^n b^n: as many b as there were a."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from foretrace._checks import check_positive_int
from foretrace.tasks._task import BITS, Example, Task, TaskSpec

_A, _B, _NEWLINE, _SYMBOLS = 0, 1, 2, 3


class AnbnState(NamedTuple):
    """Where each lane stands in its string.

    Attributes:
        keys: one typed key per lane; with the string's number folded in, it gives n.
        string: how many strings are over.
        position: symbols of the present string that are over.
    """

    keys: Any
    string: Int[Array, " lanes"]
    position: Int[Array, " lanes"]


def anbn(longest: int = 32) -> Task:
    """Predict the next character of the endless stream of strings a^n, newline, b^n, newline.

    n is uniform in {1, .., longest}, anew for every string. Nothing is ever reset. All but n can be known:
    the floor is log2(longest) bits per string of longest + 3 characters on average.

    Args:
        longest: the largest n.

    Returns:
        The task, with its floor in bits per character (0.1429 for 32).

    Raises:
        TypeError, ValueError: `longest` is not an int >= 1.

    Source: Tallec & Ollivier, ICLR 2018, and their code.
    """
    check_positive_int("longest", longest, "the paper has 32")

    def sample(state):
        def lane(key, string, position):
            n = jax.random.randint(jax.random.fold_in(key, string), (), 1, longest + 1, jnp.int32)

            def symbol(i):
                return jnp.where(i < n, _A, jnp.where((i == n) | (i == 2 * n + 1), _NEWLINE, _B))

            last = position == 2 * n + 1
            # The string after the last newline begins with an a, whatever its n.
            return symbol(position), jnp.where(last, _A, symbol(position + 1)), last

        inputs, targets, last = jax.vmap(lane)(*state)
        string = state.string + last.astype(jnp.int32)
        state = AnbnState(state.keys, string, jnp.where(last, 0, state.position + 1))
        x = jax.nn.one_hot(inputs, _SYMBOLS, dtype=jnp.float32)
        return state, Example(x, targets, jnp.zeros_like(last))

    floor = math.log2(longest) / (longest + 3)
    return Task(_SYMBOLS, _SYMBOLS, _init, sample, BITS, floor=floor)


def _init(key, lanes):
    zeros = jnp.zeros(lanes, jnp.int32)
    return AnbnState(jax.random.split(key, lanes), zeros, zeros)


SPEC = TaskSpec(
    "anbn",
    anbn,
    "the strings a^n b^n: as many b as there were a, in bits per character.",
    defaults={
        "cell": "gru",
        "hidden": 64,
        "lanes": 1,
        "learning_rate": 1e-3,
        "decay": 0.03,
        "steps": 100_000,
        "chunk": 1000,
    },
    examples=("", "--learner uoro --steps 1000000 --out runs/uoro"),
)
