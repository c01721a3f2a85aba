"""Learners and trainers on a mesh: the same functions, told where their arrays lie."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from foretrace._checks import check_kind
from foretrace._types import Cell, Learner
from foretrace._xla import spread
from foretrace.scale._layout import Layout
from foretrace.training import Carry, Streams, Trainer


def shard(learner: Learner, mesh: Mesh, cell: Cell) -> Learner:
    """The learner, with parameters, gradients, window and past divided over the devices of a mesh.

    Along `units` weights, right factors and influence matrices are divided by their columns, along `lanes`
    everything that has lanes. It is one program for all devices, by JAX's compiler, and its numbers are
    those of the learner itself up to the rounding of sums that were divided.

    Args:
        learner: any learner.
        mesh: with axes `lanes` and `units`, see `mesh`.
        cell: the cell of the learner.

    Returns:
        A learner. Its functions may be called outside of `jax.jit`, and are slow there, as those of others.

    Raises:
        TypeError: `learner` is none.
        ValueError: the mesh does not divide the columns of the cell; at `init`, the lanes.

    Example:
        >>> import jax, foretrace as ft
        >>> mesh = ft.scale.mesh(lanes=1, units=1)
        >>> cell = ft.cells.rnn(hidden=8, inputs=3)
        >>> learner = ft.scale.shard(ft.ok(cell, rank=4), mesh, cell)
        >>> params = jax.jit(cell.init)(jax.random.key(0))
        >>> params = jax.device_put(params, ft.scale.Layout(cell, mesh).params(params))
        >>> state = jax.jit(learner.init)(jax.random.key(1), params)
        >>> state.past.groups[0].right.shape  # lanes, S, Z (this axis along units), rank
        (1, 8, 8, 4)
    """
    check_kind("learner", learner, Learner, "make one, such as foretrace.ok(cell, rank=8)")
    layout = Layout(cell, mesh)

    def placed(state):
        return jax.lax.with_sharding_constraint(state, layout.state(state, learner))

    def gradient(read: Callable) -> Callable:
        def function(params, state, credit):
            with spread():
                out = read(params, state, credit)
            return jax.lax.with_sharding_constraint(out, layout.params(out))

        return function

    def init(key, params, lanes=None):
        return placed(learner.init(key, params, lanes=lanes))

    def advance(params, state, x):
        with spread():
            return placed(learner.advance(params, state, x))

    def end_block(params, state):
        with spread():
            state, info = learner.end_block(params, state)
        return placed(state), info

    return learner._replace(
        init=init,
        advance=advance,
        end_block=end_block,
        grad=gradient(learner.grad),
        sweep=gradient(learner.sweep),
    )


def carry_shardings(carry: Carry, trainer: Trainer, learner: Learner, layout: Layout, lanes: int) -> Carry:
    """Where all that training continues from lies on a mesh.

    Args:
        carry: of the trainer, or its shapes.
        trainer: whose task's state is divided by lanes.
        learner: of the trainer, sharded or not.
        layout: of its cell.
        lanes: number of lanes.

    Raises:
        ValueError: the mesh does not divide the lanes.
    """
    streams = Streams(
        layout.state(carry.streams.learner, learner),
        layout.streams(carry.streams.task, trainer.task.init, lanes),
    )
    return Carry(layout.around(carry.params), layout.around(carry.optimizer), streams)


def shard_trainer(trainer: Trainer, learner: Learner, layout: Layout, lanes: int) -> Trainer:
    """The trainer of a sharded learner, with all that continues divided over the mesh.

    Args:
        trainer: made with `shard(learner, ..)`.
        learner: the learner, sharded or not.
        layout: of its cell.
        lanes: number of lanes of the trainer.

    Returns:
        A trainer that does the same. Its carry lies where `carry_shardings` says; metrics are whole on
        every device.
    """

    def init(key):
        carry = trainer.init(key)
        shardings = carry_shardings(carry, trainer, learner, layout, lanes)
        return jax.lax.with_sharding_constraint(carry, shardings)

    return trainer._replace(init=init, chunk=shard_chunk(trainer.chunk, trainer, learner, layout, lanes))


def shard_chunk(
    chunk: Callable, trainer: Trainer, learner: Learner, layout: Layout, lanes: int
) -> Callable[[Carry], Any]:
    """As `shard_trainer`, for another chunk of the same trainer, such as its guarded one."""

    def sharded(carry):
        carry, *shown = chunk(carry)
        shardings = carry_shardings(carry, trainer, learner, layout, lanes), *layout.whole(shown)
        return jax.lax.with_sharding_constraint((carry, *shown), shardings)

    return sharded
