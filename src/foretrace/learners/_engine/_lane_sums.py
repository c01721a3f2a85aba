"""Sums over lanes: the one gradient that all streams owe to their pasts."""

from functools import reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp

from foretrace._xla import computed_once, is_spread
from foretrace.learners._engine._past import (
    GroupedGradient,
    PastRule,
    Rows,
    Terms,
    flat_rows,
    zero_gradient,
)

# Lanes that one loop of XLA:CPU adds up. It sums over a leading axis at about 1 GB/s (32 matrices of
# 289 x 256 by `jnp.sum`: 17 ms, in eights .3 ms, jaxlib 0.10 and 0.12), and reads the terms of a longer sum
# one number at a time (`python benchmarks/peers rflo-256-32`).
_TOGETHER = 8
# Of more lanes the sum is a loop over so many: written out it would swell the program.
_WRITTEN_OUT = 64


def read_lanes(rule: PastRule, past: Any, credit: jax.Array) -> GroupedGradient:
    """The gradient that the credits of all lanes owe to their pasts, summed over lanes.

    Args:
        rule: the method.
        past: leaves (lanes, ..).
        credit: (lanes, S).

    Returns:
        Per group an (F, Z) matrix, per dense leaf an array shaped like it.
    """
    if not jax.tree.leaves(past):
        return zero_gradient(rule.structure)
    # Or XLA makes the credit anew for every weight, with all the functions in it that it takes for cheap.
    credit = computed_once(credit)
    collect = jax.vmap(rule.collect)
    parts = jax.eval_shape(collect, past, credit)
    if isinstance(parts, GroupedGradient) and any(isinstance(g, Terms | Rows) for g in parts.groups):
        # Products of matrices: the fewer the better.
        parts = collect(past, credit)
        return GroupedGradient(
            tuple(_sum_group(group) for group in parts.groups),
            tuple(sum_leading(leaf) for leaf in parts.dense),
        )
    written_out = _TOGETHER if rule.widens_to_read else _WRITTEN_OUT
    return rule.place(_sum_of(lambda lanes: collect(*lanes), (past, credit), written_out))


def sum_leading(a: jax.Array) -> jax.Array:
    """The sum over the first axis."""
    return _sum_of(lambda part: part, a)


def _sum_of(function: Any, arguments: Any, written_out: int = _WRITTEN_OUT) -> Any:
    """The sum over the first axis of `function(arguments)`, which maps every lane alone.

    The arguments are cut, not the results: XLA then joins the function of few lanes with their sum.
    """
    lanes = len(jax.tree.leaves(arguments)[0])
    if jax.default_backend() != "cpu" or is_spread():
        return jax.tree.map(lambda a: jnp.sum(a, axis=0), function(arguments))

    def sum_part(start: Any, count: int) -> Any:
        def cut(a):
            return jax.lax.dynamic_slice_in_dim(a, start, count) if count < lanes else a

        parts = function(jax.tree.map(cut, arguments))
        return jax.tree.map(lambda a: reduce(add, (a[i] for i in range(count))), parts)

    def sum_slices(start: Any, stop: int) -> Any:
        total = sum_part(start, min(_TOGETHER, stop))
        for done in range(_TOGETHER, stop, _TOGETHER):
            part = sum_part(start + done, min(_TOGETHER, stop - done))
            # Or XLA makes one long sum of them again.
            total = jax.tree.map(lambda a, b: computed_once(a + b), total, part)
        return total

    whole, rest = divmod(lanes, written_out)
    if not whole or lanes == written_out:
        return sum_slices(0, lanes)
    first = sum_slices(0, written_out)

    def turn(total, start):
        return jax.tree.map(add, total, sum_slices(start, written_out)), None

    total, _ = jax.lax.scan(turn, first, jnp.arange(1, whole) * written_out)
    return jax.tree.map(add, total, sum_slices(whole * written_out, rest)) if rest else total


def _sum_group(group: Any) -> jax.Array:
    """A group's part of a `GroupedGradient` with leading lanes axis, summed over it: (F, Z)."""
    if isinstance(group, Terms):  # one matrix product
        return flat_rows(group.left).T @ flat_rows(group.right)
    if isinstance(group, Rows):  # likewise, of one row
        return jnp.tensordot(group.weights, group.matrices, group.weights.ndim)
    return sum_leading(group)
