"""The central types: a cell is dynamics, a learner is how credit reaches the parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

Params = Any  # pytree of float arrays
Hidden = Any  # pytree of float arrays, S floats in all
Input = Any  # pytree of arrays: one step of the stream
Info = Any  # NamedTuple of values that are only observed
# NamedTuple with a field `hidden`: all that a learner needs to continue bit for bit. Where a block has an
# end to wait for, also `phase`, the number of steps in the block so far, and `at_phase(index)`, the same
# state with that number.
State = Any


def whole_hidden(hidden: Hidden) -> Hidden:
    """The output of a cell that names none: its hidden state."""
    return hidden


class Cell(NamedTuple):
    """Dynamics of one example, without a batch axis.

    Attributes:
        init: `(key) -> params`, a pytree of float arrays.
        initial_hidden: `() -> hidden`, the hidden state a stream starts from.
        step: `(params, hidden, x) -> hidden`, the transition; pure, any JAX code.
        example_input: `() -> x`, an input of the shape and dtype that `step` takes. Learners
            read shapes from it before the first input arrives.
        output: `(hidden) -> output`, the part of the hidden state that readouts and layers above read, a
            vector; all of it by default.
    """

    init: Callable[[Any], Params]
    initial_hidden: Callable[[], Hidden]
    step: Callable[[Params, Hidden, Input], Hidden]
    example_input: Callable[[], Input]
    output: Callable[[Hidden], Any] = whole_hidden


@runtime_checkable
class Init(Protocol):
    """`(key, params, lanes=None) -> state`."""

    def __call__(self, key: Any, params: Params, /, lanes: int | None = None) -> State:
        """A state with zero influence, which carries its own PRNG key.

        Args:
            key: typed PRNG key.
            params: parameters of the cell; only shapes and dtypes are read.
            lanes: number of streams B side by side; leaves of `hidden`, `x` and `credit` then have a
                leading axis B. None for a single stream, without that axis.
        """
        ...


@runtime_checkable
class Advance(Protocol):
    """`(params, state, x) -> state`."""

    def __call__(self, params: Params, state: State, x: Input, /) -> State:
        """Takes one step inside a block; `state.hidden` is the new hidden state."""
        ...


@runtime_checkable
class EndBlock(Protocol):
    """`(params, state) -> (state, info)`."""

    def __call__(self, params: Params, state: State, /) -> tuple[State, Info]:
        """Ends a full block: its steps join the past. Does nothing where every step joins it at once."""
        ...


@runtime_checkable
class Grad(Protocol):
    """`(params, state, credit) -> gradient`."""

    def __call__(self, params: Params, state: State, credit: Hidden, /) -> Params:
        """The gradient of the loss at the present step, shaped like `params`, summed over lanes.

        Args:
            params: parameters of the cell.
            state: after `advance`.
            credit: dL_t/dh_t, shaped like `state.hidden`.
        """
        ...


@runtime_checkable
class Sweep(Protocol):
    """`(params, state, credits) -> gradient`."""

    def __call__(self, params: Params, state: State, credits: Hidden, /) -> Params:
        """The sum of the gradients of all steps of a full block, in one pass backwards.

        Args:
            params: parameters of the cell.
            state: after the block's last `advance`.
            credits: leaves have the leading axes (block, lanes), or (block,) for a single stream.
        """
        ...


@runtime_checkable
class Reset(Protocol):
    """`(state, restart) -> state`."""

    def __call__(self, state: State, restart: Any, /) -> State:
        """Begins anew where `restart` is true, with the cell's initial hidden state and no past.

        Args:
            state: before the step that begins a new sequence.
            restart: bools (lanes,), or one for a single stream.

        Raises:
            TypeError, ValueError: `restart` is not one bool for each lane.
        """
        ...


class Learner(NamedTuple):
    """How credit at time t reaches the parameters used at all times <= t.

    Time runs in blocks of `block` steps: `advance` takes a step, `grad` reads a gradient after it, and
    `end_block` closes a full block. `step` does it all in the right order for a plain loop; `run_blocks`
    and the trainer nest a scan over steps in a scan over blocks instead, which needs no `cond`.

    Attributes:
        init: `(key, params, lanes=None) -> state`, see `Init`.
        advance: `(params, state, x) -> state`, see `Advance`.
        end_block: `(params, state) -> (state, info)`, see `EndBlock`.
        grad: `(params, state, credit) -> gradient`, see `Grad`.
        sweep: `(params, state, credits) -> gradient`, see `Sweep`.
        reset: `(state, restart) -> state`, see `Reset`.
        block: steps per block.
    """

    init: Init
    advance: Advance
    end_block: EndBlock
    grad: Grad
    sweep: Sweep
    reset: Reset
    block: int = 1

    def step(self, params: Params, state: State, x: Input) -> tuple[State, Info]:
        """Ends the block if it is full, then advances: `(state, info)`.

        `info` tells of the block's end; its leaves are zeros at steps without one. Where every step is a
        block of its own, it tells of the present step.
        """
        if not hasattr(state, "phase"):
            return self.end_block(params, self.advance(params, state, x))
        state, info = end_full_block(self, params, state)
        return self.advance(params, state, x), info


def end_full_block(learner: Learner, params: Params, state: State) -> tuple[State, Info]:
    """Ends the block of a state with a `phase` if it is full; elsewhere the leaves of `info` are zeros."""

    def end(state):
        return learner.end_block(params, state)

    def wait(state):
        _, info = jax.eval_shape(end, state)
        return state, jax.tree.map(lambda a: jax.numpy.zeros(a.shape, a.dtype), info)

    return jax.lax.cond(state.phase == learner.block, end, wait, state)


def at_phase(state: State, index: Any) -> Any:
    """A state told its place in the block by a loop that knows it.

    Under `vmap` over seeds the loop's own index is not batched, unlike a number in the carry: the window
    is then written at one place, and not scattered into.
    """
    return state.at_phase(index) if hasattr(state, "phase") else state
