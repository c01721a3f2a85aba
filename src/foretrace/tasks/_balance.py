"""Influence balancing: a weight whose influence has one sign soon and the other one late."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from foretrace._types import Cell
from foretrace.tasks._task import Example, Loss, Metric, Task, TaskSpec

_UNITS, _POSITIVE = 23, 10


class BalanceState(NamedTuple):
    """Number of steps that are over."""

    time: Int[Array, ""]


def balance() -> Task:
    """Influence balancing: one weight drives a chain of 23 units, and the first unit should be at 1.

        s_t = A s_{t-1} + theta (1, .., 1, -1, .., -1),  10 times 1, 13 times -1       (1)
        A_ii = A_i,i+1 = 1/2,  s_0 = (1, .., 1),  theta_0 = 1/2                        (2)
        L_t = (s_t,1 - 1)^2 / 2, at every step                                         (3)

    Soon, theta raises the first unit; in the long run it lowers it, to -6 theta: the optimum is -1/6. With
    S_K the influence of the last K steps (S_1 = 1, S_10 = 10, S_infinity = -6), truncation after K steps
    steers by the mean of S_1 .. S_K, which is positive up to K = 109: it drives theta away.

    Returns:
        The task, with its cell; no input, one parameter `theta`, no readout.

    Source: Tallec & Ollivier, ICLR 2018; the system as in Vicol, Kolter, Swersky, ICML 2023, Appendix C.
    """
    matrix = (0.5 * (np.eye(_UNITS) + np.eye(_UNITS, k=1))).astype(np.float32)
    drive = np.where(np.arange(_UNITS) < _POSITIVE, 1, -1).astype(np.float32)
    cell = Cell(
        init=lambda key: {"theta": jnp.full((), 0.5)},
        initial_hidden=lambda: jnp.ones(_UNITS),
        step=lambda params, hidden, x: matrix @ hidden + params["theta"] * drive,
        example_input=lambda: jnp.zeros(0),
    )

    def sample(state):
        lanes = state.time.shape[0]
        return BalanceState(state.time + 1), Example(
            jnp.zeros((lanes, 0)), jnp.ones((lanes, 1)), jnp.zeros(lanes, bool)
        )

    def init(key, lanes):
        return BalanceState(jnp.zeros(lanes, jnp.int32))

    loss = Loss("loss", lambda s, target: 0.5 * (s[0] - target[0]) ** 2, 1.0)
    optimum = -1 / 6, "optimum -1/6"
    theta = Metric("theta", "theta", of=lambda params: params["cell"]["theta"], goal=optimum)
    return Task(0, 1, init, sample, loss, shown=(theta,), floor=0.0, cell=cell)


SPEC = TaskSpec(
    "balance",
    balance,
    "influence balancing: find the weight whose influence has one sign soon and the other one late.",
    defaults={
        "lanes": 1,
        "optimizer": "sgd",
        "learning_rate": 1e-5,
        "clip": None,
        "steps": 30_000,
        "chunk": 200,
    },
    examples=("", "--learner tbptt:100 --out runs/100", "--learner tbptt:200 --out runs/200"),
)
