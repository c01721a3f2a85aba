"""Distant brackets: say again what stood between the first ones."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from foretrace._checks import UserError, check_positive_int
from foretrace.tasks._task import BITS, Example, Task, TaskSpec


class BracketsState(NamedTuple):
    """Where each lane stands in its line.

    Attributes:
        keys: one typed key per lane; line and index folded in, it gives every letter of the lane.
        line: how many lines are over.
        position: symbols of the present line that are over.
    """

    keys: Any
    line: Int[Array, " lanes"]
    position: Int[Array, " lanes"]


def brackets(letters: int = 1, gap: tuple[int, int] = (5, 5), alphabet: int = 10) -> Task:
    """Predict the next character of the endless stream of lines [s]k[s].

    A line is `[`, s random letters, `]`, k random letters, `[`, the s letters again, `]` and a newline;
    k is uniform from gap[0] to gap[1]. Nothing is ever reset. Only the first s letters, the k letters and
    k itself cannot be known.

    Args:
        letters: letters in a bracket, s.
        gap: least and largest number of letters between two brackets, k.
        alphabet: number of different letters.

    Returns:
        The task, with its floor in bits per character. The paper's sets are (1, (5, 5), 10), with a floor
        of 1.661, (3, (2, 7), 10), with 1.774, and (10, (0, 0), 8), with 1.200.

    Raises:
        TypeError, ValueError: a number is not an int >= 1, or not 0 <= gap[0] <= gap[1].

    Source: Tallec & Ollivier, ICLR 2018, and their code.
    """
    for name, value in {"letters": letters, "alphabet": alphabet}.items():
        check_positive_int(name, value, "the paper has 1 and 10")
    if not 0 <= gap[0] <= gap[1]:
        raise UserError(f"gap must be two ints, 0 <= least <= largest; got {gap}; the paper has 5 5.")
    opening, closing, newline = alphabet, alphabet + 1, alphabet + 2
    symbols = alphabet + 3
    most = letters + gap[1]  # the gap's length is drawn with an index that no letter has

    def sample(state):
        def lane(key, line, position):
            key = jax.random.fold_in(key, line)
            k = jax.random.randint(jax.random.fold_in(key, most), (), gap[0], gap[1] + 1, jnp.int32)
            second = letters + 2 + k  # where the second bracket opens

            def symbol(i):
                again = i >= second
                within = jnp.where(again, i - second, i)  # 0 opens, then the letters, then it closes
                index = jnp.where(again | (within <= letters), within - 1, within - 2)
                letter = jax.random.randint(jax.random.fold_in(key, index), (), 0, alphabet, jnp.int32)
                current = jnp.where(within == 0, opening, letter)
                current = jnp.where(within == letters + 1, closing, current)
                return jnp.where(again & (within == letters + 2), newline, current)

            last = position == second + letters + 2
            return symbol(position), jnp.where(last, opening, symbol(position + 1)), last

        inputs, targets, last = jax.vmap(lane)(*state)
        state = BracketsState(
            state.keys, state.line + last.astype(jnp.int32), jnp.where(last, 0, state.position + 1)
        )
        x = jax.nn.one_hot(inputs, symbols, dtype=jnp.float32)
        return state, Example(x, targets, jnp.zeros_like(last))

    mean = (gap[0] + gap[1]) / 2
    unknown = (letters + mean) * math.log2(alphabet) + math.log2(gap[1] - gap[0] + 1)
    floor = unknown / (2 * letters + mean + 5)
    return Task(symbols, symbols, _init, sample, BITS, floor=floor)


def _init(key, lanes):
    zeros = jnp.zeros(lanes, jnp.int32)
    return BracketsState(jax.random.split(key, lanes), zeros, zeros)


SPEC = TaskSpec(
    "brackets",
    brackets,
    "distant brackets: say again the letters of the last bracket, in bits per character.",
    defaults={
        "cell": "gru",
        "hidden": 64,
        "lanes": 1,
        "learning_rate": 1e-3,
        "decay": 0.03,
        "steps": 100_000,
        "chunk": 1000,
    },
    examples=("", "--letters 3 --gap 2 7 --learner uoro --out runs/uoro"),
)
