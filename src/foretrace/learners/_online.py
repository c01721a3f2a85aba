"""The step that `jax.grad` differentiates, and averages of learners."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace._checks import check_count
from foretrace._types import Hidden, Input, Learner, Params, Phases, State
from foretrace.learners._engine import _window as _engine


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


class AverageState(NamedTuple):
    """States of the members, stacked on a leading axis, and the hidden state they all have."""

    hidden: Hidden
    members: Any


def average(learner: Learner, n: int) -> Learner:
    """N independent copies of a learner, whose gradients are averaged: the variance falls by n.

    `average(uoro(cell), n)` is rank-n UORO, `average(kf_rtrl(cell), n)` the papers' n-KF-RTRL-AVG.

    Cost: n times the learner's.

    Args:
        learner: an unbiased learner.
        n: number of copies.

    Raises:
        TypeError, ValueError: `n` is not an int >= 1.
    """
    check_count("n", n, "1 is the learner itself")

    def collect(members):
        return AverageState(jax.tree.map(lambda a: a[0], members.hidden), members)

    def mean(gradients):
        return jax.tree.map(lambda a: jnp.mean(a, axis=0), gradients)

    def init(key, params, lanes=None):
        def one(key):
            return learner.init(key, params, lanes)

        shared = _shared(jax.eval_shape(one, key))
        return collect(jax.vmap(one, out_axes=shared)(jax.random.split(key, n)))

    def step(params, state, x):
        shared = _shared(state.members)
        stepped = jax.vmap(learner.step, in_axes=(None, shared, None), out_axes=(shared, 0))
        members, info = stepped(params, state.members, x)
        return collect(members), info

    def grad(params, state, credit):
        read = jax.vmap(learner.grad, in_axes=(None, _shared(state.members), None))
        return mean(read(params, state.members, credit))

    def reset(state, restart):
        shared = _shared(state.members)
        begin = jax.vmap(learner.reset, in_axes=(shared, None), out_axes=shared)
        return collect(begin(state.members, restart))

    if learner.phases is None:
        return Learner(init, step, grad, reset)
    length, place, one_extend, one_compress, one_sweep = learner.phases

    def extend(params, state, x):
        shared = _shared(state.members)
        extended = jax.vmap(one_extend, in_axes=(None, shared, None), out_axes=shared)
        return collect(extended(params, state.members, x))

    def compress(params, state):
        shared = _shared(state.members)
        compressed = jax.vmap(one_compress, in_axes=(None, shared), out_axes=(shared, 0))
        members, info = compressed(params, state.members)
        return collect(members), info

    def sweep(params, state, credits):
        read = jax.vmap(one_sweep, in_axes=(None, _shared(state.members), None))
        return mean(read(params, state.members, credits))

    def placed(state, index):
        return state._replace(members=place(state.members, index))

    return Learner(init, step, grad, reset, Phases(length, placed, extend, compress, sweep))


def _shared(state: State):
    """Axes of a state's members under `vmap`; weights and the place in the block are common to them."""
    if not isinstance(state, _engine.EngineState):
        return 0
    axes: Any = {name: None if name in ("phase", "weights") else 0 for name in state._fields}
    return _engine.EngineState(**axes)
