"""The engine of most learners: an exact recent window, and a past that each method represents its own way.

Time is cut into blocks of `length` steps. Inside a block every step leaves its linearisation in the window,
and the past, which stands for the influence of the block's start, is left alone. Credit at step t runs
backwards through the window, where it is exact; the credit that arrives at the block's start is read
against the past:

    gradient = sum over the window of input_factor (x) (credit . preact_jacobian)           (1)
               + past.read(credit at the block's start)                                     (2)

A full window is pushed into the past before the next step is taken, so that a gradient never contains the
noise of its own block's reduction. With length 1 this is the papers' algorithm; the push then uses the
current parameters, those after the update that followed the step, unless the method sets
`keeps_step_weights`.

Every step of a longer block leaves its weights in the window too: under an update per step the influence is
then carried through the Jacobians of the trajectory, as in the papers, not through those that later weights
would have given. With the weights of the moment a network learns more slowly the longer its block.

With `age` 1 the window keeps one whole block more, and steps join the past only when the block after theirs
is full: what a method compresses is then never newer than one block. The past stands at the start of the
present block for all steps before the older one; credit is read against it there, and runs on through the
older block:

    gradient = (1) over the present block + (2) + (1) over the older block               (3)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace._types import Cell, Hidden, Info, Input, Params
from foretrace._xla import as_numbers, false_after, is_spread
from foretrace.learners._engine._block import AgedBlock, Block
from foretrace.learners._engine._lane_sums import read_lanes, sum_leading
from foretrace.learners._engine._lanes import (
    Lanes,
    check_credits,
    lanes_that_fit,
    map_lane_groups,
    repeat,
    write,
)
from foretrace.learners._engine._past import PastRule, PreparedRule, zero_dense


class WindowState(NamedTuple):
    """All that continues. Everything but `hidden` has a lanes axis, of length 1 for a single stream.

    Attributes:
        hidden: hidden state, with a leading lanes axis if there are lanes.
        past: the method's representation of the influence at the block's start, per lane.
        window: residuals of the steps, leaves (age length + length, lanes, ..), the older block's first.
        weights: the weights that these steps multiplied by, leaves (age length + length, ..); none where
            there is one update per block, and at length 1 unless the method wants them.
        phase: steps in the present block, 0 to length, the same for all lanes.
        restarts: (age length + length + 1, lanes) bool, true where a lane began anew just before that step.
        key: PRNG key.
    """

    hidden: Hidden
    past: Any
    window: tuple[jax.Array, ...]
    weights: tuple[jax.Array, ...]
    phase: jax.Array
    restarts: jax.Array
    key: jax.Array

    def at_phase(self, index: Any) -> "WindowState":
        """The same state at this place in the block."""
        return self._replace(phase=jnp.asarray(index, self.phase.dtype))


class WindowEngine:
    """The functions of a `Learner` around one method's past."""

    def __init__(
        self, cell: Cell, rule: PastRule, length: int, *, age: int = 0, one_update: bool = False
    ) -> None:
        """Builds the engine.

        Args:
            cell: the dynamics.
            rule: the method.
            length: steps per block.
            age: whole blocks, 0 or 1, that the window keeps before the present one.
            one_update: whether weights change between blocks alone, so that steps need not leave theirs.
        """
        self.structure, self.rule, self.length = rule.structure, rule, length
        self._older = age * length
        self._lanes = Lanes(cell, rule.structure)
        self._keeps_weights = (length > 1 or rule.keeps_step_weights or age > 0) and not one_update

    def init(self, key: jax.Array, params: Params, lanes: Any = None) -> WindowState:
        """See `foretrace._types.Init`."""
        hidden, count, key = self._lanes.first(key, params, lanes)
        steps = self._older + self.length

        def buffer(a, *axes):
            # The older block is computed with before there is one, to no effect since every lane begins
            # anew after it: its numbers must be some that may be divided by.
            fill = jnp.ones if self._older and jnp.issubdtype(a.dtype, jnp.inexact) else jnp.zeros
            return fill((steps, *axes, *a.shape), a.dtype)

        return WindowState(
            hidden=hidden,
            past=repeat(self.rule.empty(), count),
            window=tuple(buffer(a, count) for a in self.structure.residual_shapes),
            # Lanes share the weights: with an axis of theirs a window would hold each number many times.
            weights=tuple(
                jnp.repeat(a[None], steps, axis=0) if self._older else buffer(a)
                for a in self._step_weights(params)
            ),
            phase=jnp.zeros((), int),
            # One more than steps: a lane may begin anew after the last one, before the block has ended.
            restarts=jnp.zeros((steps + 1, count), bool).at[self._older].set(self._older > 0),
            key=key,
        )

    def _step_weights(self, params: Params) -> tuple[jax.Array, ...]:
        return self.structure.weights(params) if self._keeps_weights else ()

    def advance(self, params: Params, state: WindowState, x: Input) -> WindowState:
        """See `foretrace._types.Advance`."""
        hidden, residuals = self._lanes.forward(params, state, x)
        place = self._older + state.phase
        window = write(state.window, residuals, place)
        weights = write(state.weights, self._step_weights(params), place)
        return state._replace(hidden=hidden, window=window, weights=weights, phase=state.phase + 1)

    def end_block(self, params: Params, state: WindowState) -> tuple[WindowState, Info]:
        """Pushes the window's first block into the past, and shifts the rest to its place."""
        self._lanes.check_params(params)
        lanes = state.restarts.shape[1]
        # The gradient before has read the past that is overwritten here. Unless the compiler sees this
        # order, it copies the whole past at every push.
        restarts = state.restarts | false_after(params)
        # In groups of lanes whose pasts fit the caches: a push then reads its intermediate results while
        # they are there. At length 1 there is too little to read again.
        group = lanes if self.length == 1 else lanes_that_fit(state.past, lanes)
        key, past, info = push_lanes(self.rule, params, state, restarts, self.length, group)

        restarts = jnp.zeros_like(state.restarts)
        if self._older:
            # The newer block becomes the older one, with the flag of what began anew right after it.
            def shifted(buffer):
                return buffer.at[: self._older].set(buffer[self.length :])

            window, weights = jax.tree.map(shifted, (state.window, state.weights))
            state = state._replace(window=window, weights=weights)
            restarts = restarts.at[: self._older + 1].set(state.restarts[self.length :])
        phase = jnp.zeros_like(state.phase)
        state = state._replace(past=past, phase=phase, restarts=restarts, key=key)
        return state, self._lanes.like_hidden(state, info)

    def grad(self, params: Params, state: WindowState, credit: Hidden) -> Params:
        """See `foretrace._types.Grad`."""
        flat = self._lanes.ravel(state, credit)
        return self._backward(params, state, state.phase, flat, lambda i, credit: credit)

    def sweep(self, params: Params, state: WindowState, credits: Hidden) -> Params:
        """See `foretrace._types.Sweep`."""
        check_credits(credits, self.length)
        flat = jax.vmap(lambda credit: self._lanes.ravel(state, credit))(credits)
        # The block is full, and a number known beforehand stays out of `vmap` over seeds.
        full = jnp.asarray(self.length, state.phase.dtype)

        def receive(i, credit):
            return credit + flat[i - self._older]

        return self._backward(params, state, full, jnp.zeros_like(flat[0]), receive)

    def _backward(
        self,
        params: Params,
        state: WindowState,
        phase: jax.Array,
        credit: jax.Array,
        receive: Callable[[jax.Array, jax.Array], jax.Array],
    ) -> Params:
        """Equations (1) and (2), summed over lanes; `receive` adds the credit that enters at step i."""
        self._lanes.check_params(params)
        structure, lanes = self.structure, state.restarts.shape[1]
        pullback = jax.vmap(structure.pullback, in_axes=(None, 0, 0))

        def at(buffer, i):
            return jax.lax.dynamic_index_in_dim(buffer, i, 0, keepdims=False)

        def stop_at_restart(i, credit):
            return jnp.where(at(state.restarts, i)[:, None], 0, credit)

        def step(i, carry, receive):
            credit, preacts, dense = carry
            residuals = tuple(at(buffer, i) for buffer in state.window)
            step_params = structure.with_weights(params, [at(buffer, i) for buffer in state.weights])
            credit, new, leaves = pullback(step_params, residuals, receive(i, credit))
            preacts = tuple(
                jax.lax.dynamic_update_index_in_dim(buffer, value, i, 0)
                for buffer, value in zip(preacts, new, strict=True)
            )
            dense = tuple(total + sum_leading(leaf) for total, leaf in zip(dense, leaves, strict=True))
            return stop_at_restart(i, credit), preacts, dense

        older, steps = self._older, self._older + self.length
        # Of all steps, so that a group's gradient is one product with the factors, and not one per step.
        shapes = [(steps, lanes, group.preact_size) for group in structure.groups]
        preacts = tuple(jnp.zeros(shape, structure.dtype) for shape in shapes)
        carry = stop_at_restart(older + phase, credit), preacts, zero_dense(structure)
        if self.length == 1:  # a choice is cheaper than a loop of one step or none
            taken = phase > 0
            carry = jax.tree.map(
                lambda new, old: jnp.where(taken, new, old), step(older, carry, receive), carry
            )
        else:
            carry = jax.lax.fori_loop(
                0, phase, lambda j, carry: step(older + phase - 1 - j, carry, receive), carry
            )
        # The past stands at the start of the present block, also where credit runs on into an older one.
        past = read_lanes(self.rule, state.past, carry[0])  # (2)
        if older:
            carry = jax.lax.fori_loop(
                0, older, lambda j, carry: step(older - 1 - j, carry, lambda i, credit: credit), carry
            )
        _, preacts, dense = carry
        each = jax.vmap(jax.vmap(structure.factors, axis_size=lanes), axis_size=steps)
        factors = each(state.window)
        groups = [
            jnp.tensordot(f, z, ((0, 1), (0, 1))) + group  # (1)
            for f, z, group in zip(factors, preacts, past.groups, strict=True)
        ]
        dense = [a + b for a, b in zip(dense, past.dense, strict=True)]
        return structure.gradient(groups, dense)

    def reset(self, state: WindowState, restart: Any) -> WindowState:
        """See `foretrace._types.Reset`."""
        hidden, begun = self._lanes.begin(state, restart)
        # Twice in a row is once: the flag stands before the step to come, whatever stood there.
        place = self._older + state.phase
        begun |= jax.lax.dynamic_index_in_dim(state.restarts, place, 0, keepdims=False)
        restarts = jax.lax.dynamic_update_index_in_dim(state.restarts, begun, place, 0)
        return state._replace(hidden=hidden, restarts=restarts)


def push_lanes(
    rule: PastRule, params: Params, state: Any, restarts: jax.Array, length: int, group: int
) -> tuple[jax.Array, Any, Info]:
    """Pushes the block of every lane into its past.

    Args:
        rule: the method.
        params: parameters of the cell.
        state: with `past`, `window`, `weights` and `key`.
        restarts: (age length + length + 1, lanes) bool.
        length: steps per block.
        group: lanes that are pushed side by side; the groups come one after the other.

    Returns:
        The next key, the new past and the info, leaves (lanes, ..).
    """
    structure, jacobians, lanes = rule.structure, rule.jacobians, restarts.shape[1]
    in_parts = rule if isinstance(rule, PreparedRule) else None
    key, keys = state.key, state.key
    if rule.is_random:
        both = jax.random.split(key, (1 if in_parts is None else 2) * lanes + 1)
        key, keys = both[0], both[1:]
    numbers, key_of = as_numbers(keys)

    def block(window, restarts):
        def part(start):
            steps = slice(start, start + length)
            residuals, weights = jax.tree.map(lambda a: a[steps], (window, state.weights))
            gathered = jax.tree.map(lambda a: a[steps], matrices) if weights else matrices
            began = restarts[start : start + length + 1]
            return Block(structure, jacobians, params, weights, gathered, residuals, began)

        return AgedBlock(part(0), part(length)) if len(restarts) > length + 1 else part(0)

    def push(past, window, restarts, numbers):
        return rule.push(key_of(numbers), past, block(window, restarts))

    # Of all lanes, so that no group of them computes it anew.
    gather = jax.vmap(lambda weights: jacobians.weights(structure.with_weights(params, weights)))
    matrices = gather(state.weights) if state.weights else jacobians.weights(params)
    arguments = state.window, restarts, numbers
    axes = 1, 1, 0 if rule.is_random else None
    if in_parts is None:
        past, info = map_lane_groups(push, lanes, group, state.past, arguments, axes)
        return key, past, info

    def prepare(past, window, restarts, numbers):
        return in_parts.prepare(key_of(numbers), past, block(window, restarts))

    def finish(past, prepared, numbers):
        return in_parts.finish(key_of(numbers), past, prepared)

    arguments = state.past, state.window, restarts, numbers[:lanes]
    prepared = jax.vmap(prepare, in_axes=(0, 1, 1, 0))(*arguments)
    arguments = prepared, numbers[lanes:]
    # On a CPU products of many small matrices take longer than the same products one by one.
    group = 1 if jax.default_backend() == "cpu" and not is_spread() else lanes
    past, info = map_lane_groups(finish, lanes, group, state.past, arguments, (0, 0))
    return key, past, info
