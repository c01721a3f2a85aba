"""Adding: the sum of two inputs that are some steps old."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from foretrace._checks import UserError
from foretrace.tasks._task import SQUARED, Example, Task, TaskSpec


class AddingState(NamedTuple):
    """The time, and what gives the input at any time.

    Attributes:
        keys: one typed key per lane; with the time folded in, it gives the lane's input.
        time: steps that are over.
    """

    keys: Any
    time: Int[Array, ""]


def adding(near: int = 6, far: int = 10) -> Task:
    """Predict y_t = 1/2 + x_{t-near} / 2 - x_{t-far} / 4 from a stream of random bits x, forever.

    The input is (x_t, 1 - x_t). The squared error is 0 for who remembers both, 1/64 for who remembers only
    the near one, and 5/64 for who remembers none. Nothing is ever reset.

    Args:
        near: age of the input that counts more.
        far: age of the other one.

    Returns:
        The task.

    Raises:
        ValueError: not 0 <= near < far.

    Source: Marschall, Cho, Savin, JMLR 21(135), 2020 (there the softmax of two outputs, here the number).
    """
    if not 0 <= near < far:
        raise UserError(f"near must be an int >= 0 and below far; got {near} and {far}; use 6 and 10.")

    def bit(keys, time):
        return jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, time)))(keys)

    def sample(state):
        # Time starts at `far`, so that no index is negative: the first targets depend on unseen bits.
        now = state.time + far
        x, recent, old = (bit(state.keys, now - age).astype(jnp.float32) for age in (0, near, far))
        target = 0.5 + 0.5 * recent - 0.25 * old
        example = Example(jnp.stack([x, 1 - x], axis=1), target[:, None], jnp.zeros(x.shape, bool))
        return AddingState(state.keys, state.time + 1), example

    def init(key, lanes):
        return AddingState(jax.random.split(key, lanes), jnp.int32(0))

    return Task(2, 1, init, sample, SQUARED, floor=0.0)


SPEC = TaskSpec(
    "adding",
    adding,
    "adding: predict half of the input `near` steps ago minus a quarter of the one `far` steps ago.",
    defaults={"cell": "rnn", "steps": 20_000},
    examples=("", "--near 10 --far 20 --learner rtrl --out runs/rtrl"),
)
