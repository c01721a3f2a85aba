"""ARTBP, anticipated reweighted truncated back-propagation: truncation at random that is not biased."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from foretrace._checks import UserError, check_positive_int
from foretrace._types import Cell, Hidden, Learner
from foretrace.learners._engine import sweep_of_steps
from foretrace.learners._engine._lanes import Lanes, write
from foretrace.learners._engine._past import zero_dense, zero_gradient
from foretrace.structure._find import structure_of


class ARTBPInfo(NamedTuple):
    """How far back credit runs, per lane.

    Attributes:
        reach: steps since the last stop, the present one included.
    """

    reach: Int[Array, "..."]


class ARTBPState(NamedTuple):
    """All that continues. Everything but `hidden` has a lanes axis, of length 1 for a single stream.

    Attributes:
        hidden: hidden state, with a leading lanes axis if there are lanes.
        window: residuals of the latest steps, a ring; leaves (capacity, lanes, ..).
        place: of the next step in the ring.
        reach: (lanes,), steps through which credit runs back; 0 where a lane begins anew.
        key: PRNG key.
    """

    hidden: Hidden
    window: tuple[jax.Array, ...]
    place: jax.Array
    reach: jax.Array
    key: PRNGKeyArray


def artbp(cell: Cell, *, length: int, capacity: int | None = None) -> Learner:
    """ARTBP: back-propagation that stops at random, and is weighted so that its mean is the whole.

    Between any step and the one before it credit stops with probability c = 1 / length, drawn once for each
    lane, and is made up for where it goes on, with H the state Jacobian and D the preactivation Jacobian:

        credit <- 0 with probability c, else credit H / (1 - c)                          (1)
        gradient = sum over the steps back to the last stop of f (x) (credit D)          (2)

    Exactness: unbiased for fixed parameters but for what is older than `capacity` steps, which is dropped;
    credit runs that far with probability (1 - c)^capacity, 3e-4 by default. The weight of credit that
    arrives at age n is (1 - c)^-n, and its variance (1 - c)^-n - 1 times its square: short memories at a
    small price, long ones at a large one.

    Cost: memory `capacity` steps per lane; time of a forward pass and of a backward pass through
    as many steps as the lane with the longest reach has, `length` on average for one lane.

    Args:
        cell: the dynamics, any differentiable cell.
        length: mean number of steps between stops, at least 2.
        capacity: steps that are stored; 8 `length` by default.

    Returns:
        A learner; `info` is an `ARTBPInfo`.

    Raises:
        TypeError, ValueError: `length` is not an int >= 2, or `capacity` not an int >= 1.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.lstm(hidden=8, inputs=3)
        >>> learner = ft.contrib.artbp(cell, length=10)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))
        >>> int(info.reach)
        1

    Source: Tallec & Ollivier, arXiv 1705.08209, 2017, with the same probability at every step. That a
    gradient can be read at every step, and the bound on memory, are ours. Credit runs back through the
    weights of the moment: where each step has an update, those that a step was taken with are not kept.
    """
    if check_positive_int("length", length, "5 to 100 is usual") < 2:
        raise UserError("length must be an int >= 2; got 1; a stop at every step is immediate(cell).")
    slots = (
        8 * length
        if capacity is None
        else check_positive_int("capacity", capacity, "8 length is the default")
    )
    structure = structure_of(cell)
    streams = Lanes(cell, structure)

    def init(key, params, lanes=None):
        hidden, count, key = streams.first(key, params, lanes)
        shapes = structure.residual_shapes
        window = tuple(jnp.zeros((slots, count, *a.shape), a.dtype) for a in shapes)
        return ARTBPState(hidden, window, jnp.zeros((), int), jnp.zeros(count, int), key)

    def advance(params, state, x):
        hidden, residuals = streams.forward(params, state, x)
        key, drawn = jax.random.split(state.key)
        stops = random_stops(drawn, len(state.reach), 1 / length)
        reach = jnp.where(stops, 1, jnp.minimum(state.reach + 1, slots))
        window, place = write(state.window, residuals, state.place), (state.place + 1) % slots
        return ARTBPState(hidden, window, place, reach, key)

    def end_block(params, state):
        return state, streams.like_hidden(state, ARTBPInfo(state.reach))

    def grad(params, state, credit):
        streams.check_params(params)
        reach = state.reach[:, None]
        factors_of = jax.vmap(structure.factors, axis_size=len(reach))

        def back(age, carry):
            credit, groups, dense = carry
            place = (state.place - 1 - age) % slots
            residuals = tuple(
                jax.lax.dynamic_index_in_dim(buffer, place, 0, keepdims=False) for buffer in state.window
            )
            pullback = jax.vmap(structure.pullback, in_axes=(None, 0, 0))
            moved, preacts, leaves = pullback(params, residuals, credit)
            factors = factors_of(residuals)
            groups = tuple(a + f.T @ z for a, f, z in zip(groups, factors, preacts, strict=True))  # (2)
            dense = tuple(a + jnp.sum(leaf, axis=0) for a, leaf in zip(dense, leaves, strict=True))
            return jnp.where(reach > age + 1, moved / (1 - 1 / length), 0), groups, dense  # (1)

        flat = streams.ravel(state, credit)
        start = jnp.where(reach > 0, flat, 0), zero_gradient(structure).groups, zero_dense(structure)
        _, groups, dense = jax.lax.fori_loop(0, jnp.max(reach), back, start)
        return structure.gradient(groups, dense)

    def reset(state, restart):
        hidden, again = streams.begin(state, restart)
        return state._replace(hidden=hidden, reach=jnp.where(again, 0, state.reach))

    return Learner(init, advance, end_block, grad, sweep_of_steps(grad), reset)


def random_stops(key: PRNGKeyArray, lanes: int, probability: float) -> Array:
    """Independent stops, (lanes,) bool."""
    return jax.random.bernoulli(key, probability, (lanes,))
