"""Errors of a learner's gradients along a stream with fixed parameters."""

from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace._types import Learner, Params, State
from foretrace.learners import run_blocks


class Errors(NamedTuple):
    """Per step of a stream, (steps,).

    Attributes:
        error: |g - exact|^2.
        size: |exact|^2.
        cosine: of g and exact.
    """

    error: jax.Array
    size: jax.Array
    cosine: jax.Array


def along(
    learner: Learner, params: Params, state: State, inputs: tuple, each: Callable[[State, tuple], Any]
) -> tuple[State, Any]:
    """Follows a stream with fixed parameters.

    Args:
        learner: any learner.
        params: of its cell.
        state: at the start of a block.
        inputs: x, and whatever else belongs to a step, leaves (steps, ..); whole blocks.
        each: `(state, inputs) -> out`, called after every step.

    Returns:
        The state, and the outputs of all steps.
    """

    def read(params, state, inputs):
        return params, each(state, inputs)

    return run_blocks(learner, params, state, inputs, read, inputs=itemgetter(0))[1:]


def errors(
    learner: Learner, exact: Learner, params: Params, key: Any, xs: jax.Array, credits: jax.Array
) -> Errors:
    """Errors of a learner's gradients, read at every step.

    Block by block of the exact learner; no `cond`, so that all of it can be vmapped over keys and streams.
    Under `vmap` over keys the exact gradients are computed once.

    Args:
        learner: the learner to be measured.
        exact: rtrl, with a block that is a multiple of the learner's.
        params: of their cell, frozen.
        key: typed key of the learner's signs.
        xs: inputs (steps, ..); whole blocks of `exact`.
        credits: dL_t/dh_t, (steps, S).
    """

    def block(carry, inputs):
        state, truth = carry
        truth, gradients = along(
            exact, params, truth, inputs, lambda state, inputs: flat(exact.grad(params, state, inputs[1]))
        )

        def compare(state, inputs):
            _, credit, gradient = inputs
            return _compare(flat(learner.grad(params, state, credit)), gradient)

        state, series = along(learner, params, state, (*inputs, gradients), compare)
        return (state, truth), series

    # The exact learner draws nothing: a key of its own keeps its state out of a vmap over keys.
    start = learner.init(key, params), exact.init(jax.random.key(0), params)
    blocks = jax.tree.map(lambda a: a.reshape(-1, exact.block, *a.shape[1:]), (xs, credits))
    _, series = jax.lax.scan(block, start, blocks)
    return jax.tree.map(jnp.ravel, series)


def flat(gradient: Any) -> jax.Array:
    """All numbers of a pytree in one vector."""
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])


def _compare(gradient: jax.Array, exact: jax.Array) -> Errors:
    size, other = jnp.sum(exact**2), jnp.sum(gradient**2)
    lengths = jnp.sqrt(size) * jnp.sqrt(other)
    cosine = jnp.sum(gradient * exact) / jnp.where(lengths > 0, lengths, 1)
    return Errors(jnp.sum((gradient - exact) ** 2), size, cosine)
