"""Rotation: forecast a point on a circle from one of its coordinates; its speed changes now and then."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from foretrace._checks import check_positive_int
from foretrace.tasks._task import SQUARED, Example, Task, TaskSpec

_SLOWEST, _FASTEST = 0.1, 1.0  # radians per step


class RotationState(NamedTuple):
    """Where every lane's point is, and how fast.

    Attributes:
        keys: one typed key per lane; with the time folded in, it gives the lane's changes of speed.
        time: steps that are over.
        angle: radians, (lanes,).
        speed: radians per step, (lanes,).
    """

    keys: Any
    time: Int[Array, ""]
    angle: Float[Array, " lanes"]
    speed: Float[Array, " lanes"]


def rotation(period: int = 100) -> Task:
    """Predict cos(angle) one step ahead, forever, having seen nothing but its past values.

    The angle grows by the lane's speed; the speed, 0.1 to 1 radian per step, is drawn anew with
    probability 1 / `period` at every step. One value does not tell where the point goes, two do not tell
    how fast: cos(a + s) = 2 cos(s) cos(a) - cos(a - s) takes three. Nothing is ever reset.

    Args:
        period: mean number of steps between two changes of speed.

    Returns:
        The task.

    Raises:
        TypeError, ValueError: `period` is not an int >= 1.
    """
    check_positive_int("period", period, "100 is the default")

    def speed_of(key):
        return jax.random.uniform(key, minval=_SLOWEST, maxval=_FASTEST)

    def sample(state):
        def one(key, speed):
            change, new = jax.random.split(jax.random.fold_in(key, state.time))
            return jnp.where(jax.random.bernoulli(change, 1 / period), speed_of(new), speed)

        angle = jnp.mod(state.angle + state.speed, 2 * jnp.pi)
        restart = jnp.zeros(angle.shape, bool)
        example = Example(jnp.cos(state.angle)[:, None], jnp.cos(angle)[:, None], restart)
        speed = jax.vmap(one)(state.keys, state.speed)
        return RotationState(state.keys, state.time + 1, angle, speed), example

    def init(key, lanes):
        angle, speed, rest = jax.random.split(key, 3)
        return RotationState(
            jax.random.split(rest, lanes),
            jnp.int32(0),
            jax.random.uniform(angle, (lanes,), maxval=2 * jnp.pi),
            jax.vmap(speed_of)(jax.random.split(speed, lanes)),
        )

    return Task(1, 1, init, sample, SQUARED)


SPEC = TaskSpec(
    "rotation",
    rotation,
    "rotation: forecast a point on a circle from one coordinate; its speed changes now and then.",
    defaults={"cell": "rnn", "steps": 20_000},
    examples=("", "--period 20 --learner rtrl --out runs/rtrl"),
)
