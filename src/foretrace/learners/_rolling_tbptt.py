"""Truncated back-propagation through a window that slides: the whole window at every step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace._checks import check_positive_int
from foretrace._types import Cell, Hidden, Input, Learner
from foretrace.learners._catalogue._requirements import ANY_CELL
from foretrace.learners._catalogue._spec import Number, Spec
from foretrace.learners._engine._immediate import sweep_of_steps
from foretrace.learners._engine._lanes import Lanes, repeat
from foretrace.learners._engine._past import NoInfo
from foretrace.structure._find import structure_of


class RollingState(NamedTuple):
    """A ring of the last steps.

    Attributes:
        hidden: hidden state, with a leading lanes axis if there are lanes.
        before: the hidden states before these steps, leaves (window, lanes, ..).
        inputs: their inputs, leaves (window, lanes, ..).
        place: where the next step is written; there lies the oldest one.
        age: (lanes,) steps in the window since a lane began, at most `window`.
    """

    hidden: Hidden
    before: Hidden
    inputs: Input
    place: jax.Array
    age: jax.Array


def rolling_tbptt(cell: Cell, *, window: int) -> Learner:
    """TBPTT whose window slides with the stream: every gradient reaches the same number of steps back.

    The window is replayed at every step under the present parameters, from the hidden state that the
    stream had then:

        replayed(params) = step(params, .. step(params, h_{t-T}, x_{t-T+1}) .., x_t)          (1)
        gradient = credit . d replayed / d params                                           (2)

    A window of `tbptt` is cut instead of moved, and its gradients reach 1 to T steps back; only one update
    per window uses it in full. This one costs T times as much, and is what to compare an online learner
    with where each step brings an update.

    Exactness: biased, unless the window reaches back to the start of the stream.

    Cost: memory of `window` inputs and hidden states per lane; time of `window` forward and backward passes
    per gradient.

    Args:
        cell: the dynamics, any differentiable cell.
        window: steps that every gradient reaches back, T.

    Returns:
        A learner; `info` is empty.

    Raises:
        TypeError, ValueError: `window` is not an int >= 1.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.gru(hidden=8, inputs=3)
        >>> learner = ft.rolling_tbptt(cell, window=5)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))

    Source: Williams & Peng, Neural Computation 2(4), 1990, their BPTT(h); the replay is of Farr, Reddi,
    D'Eramo, Peters, arXiv 2605.24709, 2026.
    """
    check_positive_int("window", window, "for gradients that are not truncated use ok(cell, rank=16)")
    structure = structure_of(cell)
    streams = Lanes(cell, structure)

    def init(key, params, lanes=None):
        hidden, count, _ = streams.first(key, params, lanes)
        x = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), structure.x)
        return RollingState(
            hidden=hidden,
            before=repeat(repeat(cell.initial_hidden(), count), window),
            inputs=repeat(repeat(x, count), window),
            place=jnp.zeros((), int),
            age=jnp.zeros(count, int),
        )

    def advance(params, state, x):
        hidden, _ = streams.forward(params, state, x)
        before, x = streams.as_lanes(state, (state.hidden, x))
        return RollingState(
            hidden=hidden,
            before=_put(state.before, before, state.place),
            inputs=_put(state.inputs, x, state.place),
            place=(state.place + 1) % window,
            age=jnp.minimum(state.age + 1, window),
        )

    def grad(params, state, credit):
        streams.check_params(params)
        flat = jnp.where(state.age[:, None] > 0, streams.ravel(state, credit), 0)
        steps = jnp.arange(window)
        oldest_first = (state.place + steps) % window
        before, inputs = jax.tree.map(lambda a: a[oldest_first], (state.before, state.inputs))

        def replayed(params, before, inputs, age, credit):  # (1)
            def step(hidden, now):
                index, stored, x = now
                begins = index == window - age
                hidden = jax.tree.map(lambda old, own: jnp.where(begins, old, own), stored, hidden)
                return cell.step(params, hidden, x), None

            start = jax.tree.map(lambda a: a[0], before)
            hidden, _ = jax.lax.scan(step, start, (steps, before, inputs))
            return structure.ravel(hidden).astype(structure.dtype) @ credit

        def total(params):
            each = jax.vmap(replayed, in_axes=(None, 1, 1, 0, 0))
            return jnp.sum(each(params, before, inputs, state.age, flat))

        return jax.grad(total)(params)  # (2)

    def reset(state, restart):
        hidden, begun = streams.begin(state, restart)
        return state._replace(hidden=hidden, age=jnp.where(begun, 0, state.age))

    def end_block(params, state):
        return state, NoInfo()

    return Learner(init, advance, end_block, grad, sweep_of_steps(grad), reset)


def _put(ring: Any, value: Any, place: jax.Array) -> Any:
    """The ring with these leaves at this place."""
    return jax.tree.map(lambda a, b: jax.lax.dynamic_update_index_in_dim(a, b, place, 0), ring, value)


SPEC = Spec(
    factory=rolling_tbptt,
    call="rolling_tbptt(cell, window=T)",
    influence="dropped after T steps, at every step",
    exact=False,
    unbiased=False,
    memory="T (S + inputs)",
    time="T P",
    requires=ANY_CELL,
    source="Williams & Peng 1990",
    papers=("williams1990efficient",),
    operations=lambda sizes, window, block: {
        "forward": 2 * (window + 1) * sizes.weights,
        "backward": 4 * window * sizes.weights,
    },
    order=8,
    number=Number("window", 25, recommended=(25,)),
    takes_block=False,
)
