"""Learners by name, and the errors of their gradients along a stream with frozen parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace._types import Cell, Learner, Params, at_phase
from foretrace.learners import parse


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


def estimator(cell: Cell, text: str) -> Learner:
    """The learner that `text` names: NAME:N/K*C with rank or window N, block K, the average of C copies."""
    return parse(text).build(cell)


def errors(
    learner: Learner, exact: Learner, params: Params, key: Any, xs: jax.Array, credits: jax.Array
) -> Errors:
    """Errors of a learner's gradients, read at every step.

    Scans over steps, over the learner's blocks and over the exact one's; no `cond`, so that all of it can
    be vmapped over keys and streams. Under `vmap` over keys the exact gradients are computed once.

    Args:
        learner: what to measure.
        exact: rtrl, with a block that is a multiple of the learner's.
        params: of their cell, frozen.
        key: typed key of the learner's signs.
        xs: inputs (steps, ..); whole blocks of `exact`.
        credits: dL_t/dh_t, (steps, S).
    """

    def one(carry, inputs):
        (state, truth), (first, index, x, credit) = carry, inputs
        state = learner.advance(params, at_phase(state, index), x)
        truth = exact.advance(params, at_phase(truth, first + index), x)
        found, wanted = learner.grad(params, state, credit), exact.grad(params, truth, credit)
        return (state, truth), _compare(flat(found), flat(wanted))

    def block(carry, inputs):
        first, x, credit = inputs
        steps = jnp.broadcast_to(first, learner.block), jnp.arange(learner.block), x, credit
        (state, truth), seen = jax.lax.scan(one, carry, steps)
        return (learner.end_block(params, state)[0], truth), seen

    def blocks(carry, inputs):
        firsts = jnp.arange(0, exact.block, learner.block)
        (state, truth), seen = jax.lax.scan(block, carry, (firsts, *inputs))
        return (state, exact.end_block(params, truth)[0]), seen

    shape = (-1, exact.block // learner.block, learner.block)
    # The exact learner draws nothing: a key of its own keeps its state out of a vmap over keys.
    start = learner.init(key, params), exact.init(jax.random.key(0), params)
    cut = jax.tree.map(lambda a: a.reshape(*shape, *a.shape[1:]), (xs, credits))
    _, seen = jax.lax.scan(blocks, start, cut)
    return jax.tree.map(jnp.ravel, seen)


def flat(gradient: Any) -> jax.Array:
    """All numbers of a pytree in one vector."""
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])


def _compare(found: jax.Array, exact: jax.Array) -> Errors:
    size, other = jnp.sum(exact**2), jnp.sum(found**2)
    lengths = jnp.sqrt(size) * jnp.sqrt(other)
    cosine = jnp.sum(found * exact) / jnp.where(lengths > 0, lengths, 1)
    return Errors(jnp.sum((found - exact) ** 2), size, cosine)
