"""The central types: a cell is dynamics, a learner is how credit reaches the parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

Params = Any  # pytree of float arrays
Hidden = Any  # pytree of float arrays, S floats in all
Input = Any  # pytree of arrays, what one step of the stream brings
State = Any  # NamedTuple with a field `hidden`: all a learner needs to continue bit for bit
Info = Any  # NamedTuple of what is only observed


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


class Phases(NamedTuple):
    """A learner's step taken apart, for loops that nest a scan over steps in a scan over blocks.

    `step` is `compress` when the block is full, then `extend`; a loop that calls the two itself
    needs no `cond`, so that it can be vmapped over seeds at full speed.

    Attributes:
        length: steps per block.
        place: `(state, index) -> state`, the same state told its place in the block, 0 to length - 1,
            by a loop that knows it as an index of its own (and so not batched under `vmap`).
        extend: `(params, state, x) -> state`, one step inside a block.
        compress: `(params, state) -> (state, info)`, the end of a block.
        sweep: `(params, state, credits) -> gradient` at the end of a full block, for losses at all
            of its steps; leaves of `credits` have the leading axes (length, lanes).
    """

    length: int
    place: Callable[[State, Any], State]
    extend: Callable[[Params, State, Input], State]
    compress: Callable[[Params, State], tuple[State, Info]]
    sweep: Callable[[Params, State, Hidden], Params]


class Learner(NamedTuple):
    """How credit at time t reaches the parameters used at all times <= t.

    Attributes:
        init: `(key, params, lanes=None) -> state` with zero influence; the state carries its own
            PRNG key. With `lanes=B`, leaves of `hidden`, `x` and `credit` have a leading axis B.
        step: `(params, state, x) -> (state, info)`; `state.hidden` is the new hidden state.
        grad: `(params, state, credit) -> gradient`, shaped like `params`, summed over lanes;
            `credit` is dL_t/dh_t, shaped like `state.hidden`.
        reset: `(state, restart) -> state`: lanes where `restart` is true begin again, with the cell's
            initial hidden state and no past; a bool array (lanes,), or () for a single stream.
        phases: the same step taken apart, or None where a learner has no such parts.
    """

    init: Callable[..., State]
    step: Callable[[Params, State, Input], tuple[State, Info]]
    grad: Callable[[Params, State, Hidden], Params]
    reset: Callable[[State, Any], State]
    phases: Phases | None = None
