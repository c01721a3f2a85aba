"""Gradients of learners beside exact ones, along a network's own streams, with frozen parameters."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._checks import UserError
from foretrace._types import Cell, Learner, Params, at_phase
from foretrace._xla import jit_fast_compile
from foretrace.experiments._gradient_error import flat
from foretrace.learners import analyse, low_rank, rtrl

# Of the estimate that stands in for a gradient that is too dear.
_REFERENCE_RANK = 64
_REFERENCE_BLOCK = 32


class Compared(NamedTuple):
    """Gradients beside exact ones.

    Attributes:
        values: per learner its relative squared error, bias and cosine, (draws,) each; see `Noise`.
        reference: what `exact` was, in words.
        reference_error: relative squared error of the reference itself; 0 where it is exact.
    """

    values: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    reference: str
    reference_error: float


def compare(
    cell: Cell,
    members: dict[str, Learner],
    params: Params,
    xs: Any,
    credits: Any,
    *,
    restarts: Any = None,
    draws: int = 8,
    memory: float = 2e9,
) -> Compared:
    """Reads every learner's gradient at every step, beside the exact one; as `measure_noise`, untimed.

    Raises:
        ValueError: no exact gradient is above zero and finite.
    """
    reference, exact = _reference(cell, memory)
    if restarts is None:
        restarts = jnp.zeros(jax.tree.leaves(xs)[0].shape[:2], bool)
    one = partial(_along_one, members, exact, params, draws)
    keys = jax.random.split(jax.random.key(0), restarts.shape[1])
    streams = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), (xs, credits, restarts))
    sums, size, count, own = jit_fast_compile(lambda: jax.lax.map(lambda a: one(*a), (keys, *streams)))()
    total = float(jnp.sum(size))
    if not 0 < total < float("inf"):
        raise UserError(
            "credits must make some exact gradient that is not zero and finite; got "
            f"|gradient|^2 = {total} in all; give those of the loss at this network."
        )
    values, steps = {}, float(jnp.sum(count))
    for name in members:
        error, along, cosine = (np.asarray(a, float) for a in sums[name])  # (streams, draws)
        values[name] = error.sum(axis=0) / total, along.sum(axis=0) / total, cosine.sum(axis=0) / steps
    return Compared(values, reference, float(jnp.sum(own)) / total)


def _reference(cell: Cell, memory: float) -> tuple[str, list[Learner]]:
    """The exact learner, or two of high rank whose mean stands in for it."""
    explanation, block = analyse(cell), 16
    if explanation.cost(f"rtrl/{block}").bytes <= memory:
        return "exact RTRL", [rtrl(cell, block=block)]
    rank = min(_REFERENCE_RANK, explanation.structure.state_size)
    stand_in = low_rank(cell, rank=rank, block=_REFERENCE_BLOCK)
    return f"two low_rank:{rank}/{_REFERENCE_BLOCK}", [stand_in] * 2


def _along_one(
    members: dict[str, Learner],
    exact: list[Learner],
    params: Params,
    draws: int,
    key: Any,
    xs: Any,
    credits: Any,
    restarts: jax.Array,
) -> tuple[dict[str, Any], jax.Array, jax.Array, jax.Array]:
    """Sums over one stream.

    Returns:
        Per learner |g - exact|^2, (g - exact) . exact and cosines summed over steps, (draws,); |exact|^2
        summed over steps; the number of steps where it is not 0; and the squared error of the reference.
    """
    truth_keys, *keys = (jax.random.split(k, draws) for k in jax.random.split(key, len(members) + 1))

    def start(learner, keys):
        return jax.vmap(lambda key: learner.init(key, params))(keys)

    def read(learner, state, inputs):
        t, x, credit, restart = inputs
        # A number that all draws share keeps the end of a block a choice and not two computations.
        state = at_phase(state, jnp.where(t > 0, (t - 1) % learner.block + 1, 0))
        state, _ = learner.step(params, learner.reset(state, restart), x)
        return state, flat(learner.grad(params, state, credit))

    def step(carry, inputs):
        truths, states, sums, size, count, own = carry
        pairs = [read(learner, state, inputs) for learner, state in zip(exact, truths, strict=True)]
        truths, gradients = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        truth = sum(gradients[1:], gradients[0]) / len(gradients)
        square = jnp.sum(truth**2)
        # One that is all but zero: its square may be nothing in one sum and something in another.
        is_some = square > jnp.finfo(square.dtype).tiny
        own += jnp.sum((gradients[0] - gradients[-1]) ** 2) / 4  # of a mean of two
        for name, learner in members.items():
            states[name], got = jax.vmap(lambda state, learner=learner: read(learner, state, inputs))(
                states[name]
            )
            difference = got - truth[None]
            lengths = jnp.linalg.norm(got, axis=1) * jnp.linalg.norm(truth)
            cosine = jnp.where(is_some, got @ truth / jnp.where(lengths > 0, lengths, 1), 0)
            new = jnp.sum(difference**2, axis=1), difference @ truth, cosine
            sums[name] = jax.tree.map(jnp.add, sums[name], new)
        return (truths, states, sums, size + square, count + is_some.astype(int), own), None

    zeros = (jnp.zeros(draws),) * 3
    carry = (
        [learner.init(key, params) for learner, key in zip(exact, truth_keys, strict=False)],
        {name: start(learner, key) for (name, learner), key in zip(members.items(), keys, strict=True)},
        dict.fromkeys(members, zeros),
        jnp.zeros(()),
        jnp.zeros((), int),
        jnp.zeros(()),
    )
    (_, _, sums, size, count, own), _ = jax.lax.scan(
        step, carry, (jnp.arange(len(restarts)), xs, credits, restarts)
    )
    return sums, size, count, own
