"""The copy task: hear a random bit string, wait, say it again."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from foretrace.tasks._task import BITS, Example, Metric, Task, TaskSpec

_START, _BLANK, _SYMBOLS = 2, 3, 4
_SPREAD = 5  # a sequence's length is one of the last five lengths of the curriculum
_DECAY, _SOLVED, _AFTER_RAISE = 0.999, 0.15, 0.3


class CopyState(NamedTuple):
    """Where each lane stands in its sequence, and the curriculum they share.

    Attributes:
        keys: one typed key per lane; sequence and index folded in, it gives every bit of the lane.
        sequence: how many sequences the lane has started.
        length: T of the lane's present sequence, which has 2T + 2 time steps.
        position: time steps of that sequence that are over.
        curriculum: T of the curriculum.
        average: moving average of the loss in bits.
    """

    keys: Any
    sequence: Int[Array, " lanes"]
    length: Int[Array, " lanes"]
    position: Int[Array, " lanes"]
    curriculum: Int[Array, ""]
    average: Float[Array, ""]


def copy() -> Task:
    """The copy task with its curriculum, endless: no length is the last.

    A sequence of length T has 2T + 2 time steps: a start symbol, T random bits and T + 1 blanks
    are heard; T + 1 blanks, the start symbol and the T bits are to be said, so the delay is T + 1.
    Lanes run on their own: each starts its next sequence when the last one is over.

        T = max(1, curriculum - k),  k uniform in {0, .., 4}                      (1)
        average <- 0.999 average + 0.001 loss, at every time step, 1 at first     (2)
        curriculum <- curriculum + 1 and average <- 0.3, when a lane starts a
            sequence while average < 0.15                                         (3)

    Returns:
        The task. The loss counts every time step, also the trivial ones; in bits per character, a
        network that knows all but the bits stands at T / (2T + 2). `metrics` gives `T`, the
        curriculum, and `average`.

    Source:
        Mujika et al., NeurIPS 2018, and the authors' code of Benzing et al., ICML 2019.
    """
    level = Metric("T", "longest sequence, T", start=1, rises_below=_SOLVED)
    return Task(_SYMBOLS, _SYMBOLS, _init, _sample, BITS, _feedback, _metrics, (level,))


def _init(key, lanes):
    zeros = jnp.zeros(lanes, jnp.int32)
    return CopyState(
        keys=jax.random.split(key, lanes),
        sequence=zeros,
        length=zeros,
        position=zeros + 2,  # the end of an empty sequence: every lane starts with the first step
        curriculum=jnp.int32(1),
        average=jnp.float32(1),
    )


def _sample(state):
    restart = state.position == 2 * state.length + 2
    harder = jnp.any(restart) & (state.average < _SOLVED)
    curriculum = state.curriculum + harder.astype(jnp.int32)  # (3)
    average = jnp.where(harder, jnp.float32(_AFTER_RAISE), state.average)

    def lane(key, sequence, length, position, restart):
        key = jax.random.fold_in(key, sequence)
        shorter = jax.random.randint(jax.random.fold_in(key, 0), (), 0, _SPREAD)
        length = jnp.where(restart, jnp.maximum(1, curriculum - shorter), length)  # (1)
        # At any time one place of [start, bit 1, .., bit T] is either heard or said. Its bit is
        # drawn anew each time it is needed: a buffer would put an end to the curriculum.
        hears = position <= length
        index = jnp.where(hears, position, position - length - 1)
        bit = jax.random.bernoulli(jax.random.fold_in(key, index)).astype(jnp.int32)
        symbol = jnp.where(index == 0, _START, bit)
        return length, jnp.where(hears, symbol, _BLANK), jnp.where(hears, _BLANK, symbol)

    sequence = state.sequence + restart.astype(jnp.int32)
    position = jnp.where(restart, 0, state.position)
    length, inputs, targets = jax.vmap(lane)(state.keys, sequence, state.length, position, restart)
    state = CopyState(state.keys, sequence, length, position + 1, curriculum, average)
    return state, Example(jax.nn.one_hot(inputs, _SYMBOLS, dtype=jnp.float32), targets, restart)


def _feedback(state, bits):
    return state._replace(average=_DECAY * state.average + (1 - _DECAY) * bits)  # (2)


def _metrics(state):
    return {"T": state.curriculum, "average": state.average}


SPEC = TaskSpec(
    "copy",
    copy,
    "the copy task: hear T random bits, wait, say them again; T rises whenever it is solved.",
    examples=(
        "",
        "--learner ok:16 --hidden 128 --steps 100000 --out runs/big",
        "--learner tbptt:5 --cell gru --out runs/gru",
    ),
)
