"""Loops around a learner: the step that `jax.grad` differentiates, steps in blocks, averages."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from foretrace._checks import UserError, check_kind, check_positive_int
from foretrace._types import Hidden, Input, Learner, Params, State, at_phase, end_full_block
from foretrace.learners._engine._window import WindowState

_MAKE = "make one of the cell, such as ok(cell, rank=16)"


def online(learner: Learner) -> Callable[[Params, State, Input], tuple[Hidden, State]]:
    """A step that plain `jax.grad` differentiates, with the learner's gradient for the parameters.

    Backward, the cotangent of `hidden` goes to `learner.grad` for the parameters, and through this one step
    of the cell for `x`; the returned state carries no gradient. Works under `jit`, `vmap`, `scan` and
    `grad`, with any readout, several losses, and layers below and above.

    Args:
        learner: any learner.

    Returns:
        `(params, state, x) -> (hidden, state)`.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.gru(hidden=8, inputs=3)
        >>> learner = ft.ok(cell, rank=4)
        >>> step = ft.online(learner)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> def loss(params, state, x):
        ...     hidden, state = step(params, state, x)
        ...     return (hidden**2).sum(), state
        >>> grads, state = jax.grad(loss, has_aux=True)(params, state, jax.numpy.ones(3))
        >>> grads["reset"]["recurrent"].shape
        (8, 8)
    """
    check_kind("learner", learner, Learner, _MAKE)

    @jax.custom_vjp
    def step(params, state, x):
        state, _ = learner.step(params, state, x)
        return state.hidden, state

    def forward(params, state, x):
        def one_step(x):
            new, _ = learner.step(params, state, x)
            return new.hidden, new

        hidden, transpose, new = jax.vjp(one_step, x, has_aux=True)
        return (hidden, new), (params, new, transpose)

    def backward(saved, cotangents):
        params, state, transpose = saved
        credit, _ = cotangents
        (to_x,) = transpose(credit)
        return learner.grad(params, state, credit), None, to_x

    step.defvjp(forward, backward)
    return step


def run_blocks(
    learner: Learner,
    carry: Any,
    state: State,
    xs: Any,
    each: Callable[[Any, State, Any], tuple[Any, Any]],
    end: Callable[[Any, State, Any], tuple[Any, Any]] | None = None,
    *,
    params: Callable[[Any], Params] = lambda carry: carry,
    inputs: Callable[[Any], Input] = lambda x: x,
) -> tuple[Any, State, Any]:
    """Takes steps in whole blocks: a scan over steps in a scan over blocks, without a `cond`.

    It may follow and precede single steps where a block is full, nowhere else.

    Args:
        learner: any learner.
        carry: what changes from step to step beside the state: the cell's parameters, or a pytree that has
            them, with a readout, say, and an optimiser's state.
        state: at the start of a block, such as a new one, or after the last step of a block.
        xs: what each step brings, leaves (steps, ..): the cell's inputs, or a pytree that has them, with
            targets, say. The number of steps must be a multiple of `learner.block`.
        each: `(carry, state, x) -> (carry, out)`, called after every step: reads gradients, updates.
        end: `(carry, state, outs) -> (carry, out)`, called at the end of every full block before it joins
            the past, with the outputs of its steps, leaves (block, ..): for `learner.sweep`.
        params: `(carry) -> params`, the cell's parameters; all of it by default.
        inputs: `(x) -> input`, the cell's input, leaves (..) or (lanes, ..); all of it by default.

    Returns:
        Carry, state and the outputs of all steps, leaves (steps, ..); with `end` its outputs, leaves
        (blocks, ..).

    Raises:
        ValueError: the number of steps is not a multiple of the block, or `state` is within one (not
            noticed under `jax.jit`).

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.rnn(hidden=8, inputs=3)
        >>> learner = ft.ok(cell, rank=4, block=5)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> def each(params, state, x):
        ...     gradient = learner.grad(params, state, state.hidden)
        ...     return jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient), (state.hidden**2).sum()
        >>> params, state, losses = ft.run_blocks(learner, params, state, jax.numpy.ones((20, 3)), each)
        >>> losses.shape
        (20,)
    """
    check_kind("learner", learner, Learner, _MAKE)
    steps = len(jax.tree.leaves(xs)[0])
    if steps % learner.block:
        raise UserError(
            f"xs must have a multiple of {learner.block} steps, those of a block; got {steps}; cut or pad "
            "them."
        )

    def step(running, place):
        (carry, state), (index, x) = running, place
        state = learner.advance(params(carry), at_phase(state, index), inputs(x))
        carry, out = each(carry, state, x)
        return (carry, state), out

    def block(running, xs):
        (carry, state), outs = jax.lax.scan(step, running, (jnp.arange(learner.block), xs))
        if end is not None:
            carry, outs = end(carry, state, outs)
        state, _ = learner.end_block(params(carry), state)
        return (carry, state), outs

    state = _at_block_start(learner, params(carry), state)
    blocks = jax.tree.map(lambda a: a.reshape(-1, learner.block, *a.shape[1:]), xs)
    (carry, state), outs = jax.lax.scan(block, (carry, state), blocks)
    if end is None:
        outs = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), outs)
    return carry, state, outs


def _at_block_start(learner: Learner, params: Params, state: State) -> State:
    """The state with its block ended where that is full: `step` leaves this to the step that follows."""
    phase = getattr(state, "phase", 0)
    if not isinstance(phase, Tracer):
        if phase == 0:
            return state
        if phase != learner.block:
            raise UserError(
                f"state must be at a block's start or at its end, after {learner.block} steps; got one "
                f"after {phase}; take single steps until then."
            )
    return end_full_block(learner, params, state)[0]


class AverageState(NamedTuple):
    """States of the members, stacked on a leading axis, and the hidden state they all have."""

    hidden: Hidden
    members: Any

    @property
    def phase(self) -> Any:
        """The members' place in the block, if they have one."""
        return self.members.phase

    def at_phase(self, index: Any) -> "AverageState":
        """The same state at this place in the block."""
        return self._replace(members=self.members.at_phase(index))


def average(learner: Learner, n: int) -> Learner:
    """N independent copies of a learner, whose gradients are averaged: the variance falls by n.

    Copies of a learner that draws nothing are all the same, and the bias of a biased one stays: they cost n
    times as much for nothing.

    `average(uoro(cell), n)` is rank-n UORO, `average(kf_rtrl(cell), n)` the papers' n-KF-RTRL-AVG.

    Cost: n times the learner's.

    Args:
        learner: an unbiased learner.
        n: number of copies.

    Raises:
        TypeError, ValueError: `n` is not an int >= 1.
    """
    check_kind("learner", learner, Learner, _MAKE)
    check_positive_int("n", n, "1 is the learner itself")

    def collect(members):
        return AverageState(jax.tree.map(lambda a: a[0], members.hidden), members)

    def init(key, params, lanes=None):
        def one(key):
            return learner.init(key, params, lanes)

        shared = _axes(jax.eval_shape(one, key))
        return collect(jax.vmap(one, out_axes=shared)(jax.random.split(key, n)))

    def advance(params, state, x):
        axes = _axes(state.members)
        return collect(
            jax.vmap(learner.advance, in_axes=(None, axes, None), out_axes=axes)(params, state.members, x)
        )

    def end_block(params, state):
        axes = _axes(state.members)
        ended = jax.vmap(learner.end_block, in_axes=(None, axes), out_axes=(axes, 0))
        members, info = ended(params, state.members)
        return collect(members), info

    def mean(read: Callable) -> Callable:
        """The mean over members of `learner.grad` or `learner.sweep`."""

        def gradient(params, state, credit):
            every = jax.vmap(read, in_axes=(None, _axes(state.members), None))
            return jax.tree.map(lambda a: jnp.mean(a, axis=0), every(params, state.members, credit))

        return gradient

    def reset(state, restart):
        axes = _axes(state.members)
        return collect(jax.vmap(learner.reset, in_axes=(axes, None), out_axes=axes)(state.members, restart))

    return Learner(init, advance, end_block, mean(learner.grad), mean(learner.sweep), reset, learner.block)


def _axes(state: Any) -> Any:
    """Axes of members' states under `vmap`; step weights and the place in the block are common to them."""
    if isinstance(state, AverageState):
        return AverageState(hidden=0, members=_axes(state.members))
    if not isinstance(state, WindowState):
        return 0
    axes: Any = {name: None if name in ("phase", "weights") else 0 for name in state._fields}
    return WindowState(**axes)
