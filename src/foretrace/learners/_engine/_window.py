"""The engine under every learner: an exact recent window and a past that each method represents its way.

Time is cut into blocks of `length` steps. Inside a block every step leaves its linearisation in the
window and the past, which stands for the influence of the block's start, is left alone. Credit at step t
runs backwards through the window, where it is exact, and what arrives at the block's start is read
against the past:

    gradient = sum over the window of input_factor (x) (credit . preact_jacobian)           (1)
               + past.read(credit at the block's start)                                     (2)

A full window is pushed into the past before the next step is taken, so that a gradient never contains the
noise of its own block's reduction. With length 1 this is the recursion of the papers; a push multiplies by
the weights it is given, which are then one update newer than the step unless the past has it otherwise.

Every step of a longer block leaves its weights in the window too: under an update per step the influence is
then carried through the Jacobians of the trajectory, as in the papers, not through those that later weights
would have given. With the weights of the moment a network learns more slowly the longer its block.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace._types import Cell, Hidden, Info, Input, Learner, Params, Phases, State
from foretrace._xla import false_after
from foretrace.learners._engine._lanes import (
    as_lanes,
    begin,
    by_groups,
    first_hidden,
    forward,
    lanes_that_fit,
    like_hidden,
    once_for_shapes,
    repeat,
    write,
)
from foretrace.learners._engine._past import Block, Past, Terms, no_dense
from foretrace.structure._jacobians import JacobianRule, jacobian_rule
from foretrace.structure._structure import Structure


class EngineState(NamedTuple):
    """All that continues. Everything but `hidden` has a lanes axis, of length 1 for a single stream.

    Attributes:
        hidden: hidden state, with a leading lanes axis if there are lanes.
        past: the method's representation of the influence at the block's start, per lane.
        window: residuals of the block's steps, leaves (length, lanes, ..).
        weights: the weights that these steps multiplied by, leaves (length, ..); none where there is one
            update per block, and at length 1 unless the past wants them.
        phase: steps in the window, 0 to length, the same for all lanes.
        cuts: (length + 1, lanes) bool, true where a lane began anew just before that step of the block.
        key: PRNG key.
    """

    hidden: Hidden
    past: Any
    window: tuple[jax.Array, ...]
    weights: tuple[jax.Array, ...]
    phase: jax.Array
    cuts: jax.Array
    key: jax.Array


def engine(
    cell: Cell, past: Callable[[Structure], Past], length: int, *, one_update: bool = False
) -> Learner:
    """Builds a learner from a method's `Past` and the length of its block.

    Args:
        cell: the dynamics.
        past: the method, given the cell's structure.
        length: steps per block.
        one_update: whether weights change between blocks alone, so that steps need not leave theirs.
    """

    def build(structure: Structure) -> tuple[Structure, Past, JacobianRule]:
        return structure, past(structure), jacobian_rule(structure)

    method = once_for_shapes(cell, build)

    def weights_of(params: Params) -> tuple[jax.Array, ...]:
        structure, way, _ = method(params)
        remembers = (length > 1 or way.own_weights) and not one_update
        return structure.weights(params) if remembers else ()

    def init(key, params, lanes=None):
        structure, way, _ = method(params)
        hidden, count = first_hidden(cell, lanes)
        return EngineState(
            hidden=hidden,
            past=repeat(way.empty(), count),
            window=tuple(jnp.zeros((length, count, *a.shape), a.dtype) for a in structure.residual_shapes),
            weights=tuple(jnp.zeros((length, *a.shape), a.dtype) for a in weights_of(params)),
            phase=jnp.zeros((), int),
            cuts=jnp.zeros((length + 1, count), bool),
            key=key,
        )

    def joins(params: Params) -> bool:
        """Whether a step joins the past as it is taken."""
        return length == 1 and method(params)[1].at_once

    def take(params: Params, state: State, x: Input) -> State:
        structure, _, _ = method(params)
        hidden, residuals = forward(structure, params, state, x)
        window = write(state.window, residuals, state.phase)
        weights = write(state.weights, weights_of(params), state.phase)
        return state._replace(hidden=hidden, window=window, weights=weights, phase=state.phase + 1)

    def push(params: Params, state: State) -> tuple[State, Info]:
        structure, way, products = method(params)
        key, keys = state.key, state.key
        if way.draws:
            both = jax.random.split(key, state.cuts.shape[1] + 1)
            key, keys = both[0], both[1:]

        def one(past, window, cuts, numbers):
            # As numbers, since the checker of keys takes those that a scan goes through for used.
            key = jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(keys))
            block = Block(structure, products, params, state.weights, matrices, window, cuts)
            return way.push(key, past, block)

        # Of all lanes, so that no group of them makes it anew.
        theirs = jax.vmap(lambda weights: products.weights(structure.with_weights(params, weights)))
        matrices = theirs(state.weights) if state.weights else products.weights(params)
        cuts = state.cuts
        if not joins(params):  # it follows an update, whose gradient has read what is written anew here
            cuts |= false_after(params)
        lanes = cuts.shape[1]
        group = lanes if length == 1 else lanes_that_fit(state.past, lanes)
        axes = 1, 1, 0 if way.draws else None
        given = state.window, cuts, jax.random.key_data(keys)
        past, info = by_groups(one, lanes, group, state.past, given, axes)
        info = like_hidden(structure, state, info)
        phase, cuts = jnp.zeros_like(state.phase), jnp.zeros_like(state.cuts)
        return state._replace(past=past, phase=phase, cuts=cuts, key=key), info

    def wait(params: Params, state: State) -> tuple[State, Info]:
        """Leaves a state as it is, and tells of a push that was none."""
        _, info = jax.eval_shape(push, params, state)
        return state, jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), info)

    def step(params: Params, state: State, x: Input) -> tuple[State, Info]:
        if joins(params):
            return push(params, take(params, place(state, 0), x))
        full, skip = partial(push, params), partial(wait, params)
        state, info = jax.lax.cond(state.phase == length, full, skip, state)
        return take(params, state, x), info

    def extend(params: Params, state: State, x: Input) -> State:
        if joins(params):
            return step(params, state, x)[0]
        return take(params, state, x)

    def compress(params: Params, state: State) -> tuple[State, Info]:
        return wait(params, state) if joins(params) else push(params, state)

    def grad(params: Params, state: State, credit: Hidden) -> Params:
        structure, _, _ = method(params)
        state = place(state, 0) if joins(params) else state  # so that the compiler knows of no step
        flat = jax.vmap(structure.ravel)(as_lanes(structure, state, credit))
        return _backward(params, state, flat, lambda i, credit: credit)

    def sweep(params: Params, state: State, credits: Hidden) -> Params:
        if joins(params):
            return grad(params, state, jax.tree.map(lambda a: a[0], credits))
        structure, _, _ = method(params)
        credits = jax.vmap(lambda credit: as_lanes(structure, state, credit))(credits)
        flat = jax.vmap(jax.vmap(structure.ravel))(credits)
        return _backward(params, state, jnp.zeros_like(flat[0]), lambda i, credit: credit + flat[i])

    def _backward(params, state, credit, receive) -> Params:
        """Equations (1) and (2), summed over lanes; `receive` adds the credit that enters at step i."""
        structure, way, _ = method(params)
        count = state.cuts.shape[1]
        pullback = jax.vmap(structure.pullback, in_axes=(None, 0, 0))

        def at(buffer, i):
            return jax.lax.dynamic_index_in_dim(buffer, i, 0, keepdims=False)

        def cut(i, credit):
            return jnp.where(at(state.cuts, i)[:, None], 0, credit)

        def step(j, carry):
            credit, preacts, dense = carry
            i = state.phase - 1 - j
            residuals = tuple(at(buffer, i) for buffer in state.window)
            then = structure.with_weights(params, [at(buffer, i) for buffer in state.weights])
            credit, new, leaves = pullback(then, residuals, receive(i, credit))
            preacts = tuple(
                jax.lax.dynamic_update_index_in_dim(buffer, value, i, 0)
                for buffer, value in zip(preacts, new, strict=True)
            )
            dense = tuple(total + jnp.sum(leaf, axis=0) for total, leaf in zip(dense, leaves, strict=True))
            return cut(i, credit), preacts, dense

        preacts = tuple(
            jnp.zeros((length, count, group.preact_size), structure.dtype) for group in structure.groups
        )
        carry = cut(state.phase, credit), preacts, no_dense(structure)
        if length == 1:  # a choice is cheaper than a loop of one step or none
            taken = state.phase > 0
            carry = jax.tree.map(lambda new, old: jnp.where(taken, new, old), step(0, carry), carry)
        else:
            carry = jax.lax.fori_loop(0, state.phase, step, carry)
        credit, preacts, dense = carry
        before = jax.vmap(way.read)(state.past, credit)
        each = jax.vmap(jax.vmap(structure.factors, axis_size=count), axis_size=length)
        factors = each(state.window)
        groups = [
            _flatten(f).T @ _flatten(z) + _total(group)
            for f, z, group in zip(factors, preacts, before.groups, strict=True)
        ]
        dense = [a + jnp.sum(b, axis=0) for a, b in zip(dense, before.dense, strict=True)]
        return structure.gradient(groups, dense)

    def reset(state: State, restart: jax.Array) -> State:
        hidden = begin(cell, state.hidden, restart)
        cut = jax.lax.dynamic_index_in_dim(state.cuts, state.phase, 0, keepdims=False)
        cut = cut | restart.reshape(cut.shape)
        cuts = jax.lax.dynamic_update_index_in_dim(state.cuts, cut, state.phase, 0)
        return state._replace(hidden=hidden, cuts=cuts)

    def place(state: State, index) -> State:
        return state._replace(phase=jnp.asarray(index, state.phase.dtype))

    return Learner(init, step, grad, reset, Phases(length, place, extend, compress, sweep))


def _total(group) -> jax.Array:
    """Sum over lanes; of `Terms` as one matrix product."""
    if isinstance(group, Terms):
        return _flatten(group.left).T @ _flatten(group.right)
    return jnp.sum(group, axis=0)


def _flatten(a: jax.Array) -> jax.Array:
    return a.reshape(-1, a.shape[-1])
