"""Several cells as the layers of one."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax

from foretrace._checks import UserError
from foretrace._types import Cell, Hidden
from foretrace._xla import key_after
from foretrace.structure._find import shapes_of


class StackHidden(NamedTuple):
    """The states of the layers of a stack, lowest first."""

    layers: tuple[Hidden, ...]


def stack(cells: Sequence[Cell]) -> Cell:
    """Several cells as layers of one; each reads, at the same step, the new state of the one below.

        hidden_1' = step_1(params_1, hidden_1, x)                               (1)
        hidden_i' = step_i(params_i, hidden_i, output_{i-1}(hidden_{i-1}'))     (2)

    The influence of a learner on this cell is that of the whole: how a lower layer's parameters act on the
    upper layers' later states is counted too, at the price of one large cell.

    Cheaper and biased: one learner per layer, connected by `jax.grad`. Each layer's own past is counted in
    full; credit reaches lower layers through the present step alone (Zucchet et al., NeurIPS 2023):

        >>> import jax, foretrace as ft
        >>> low, high = ft.cells.rtu(hidden=4, inputs=3), ft.cells.elstm(hidden=5, inputs=8)
        >>> learners = ft.rtrl(low), ft.rtrl(high)
        >>> steps = [ft.online(learner) for learner in learners]
        >>> params = low.init(jax.random.key(0)), high.init(jax.random.key(1))
        >>> states = tuple(
        ...     learner.init(jax.random.key(2), p) for learner, p in zip(learners, params, strict=True)
        ... )
        >>> def loss(params, states, x):
        ...     below, low = steps[0](params[0], states[0], x)
        ...     above, high = steps[1](params[1], states[1], below)
        ...     return (above**2).sum(), (low, high)
        >>> grads, states = jax.grad(loss, has_aux=True)(params, states, jax.numpy.ones(3))

    Args:
        cells: the layers, lowest first.

    Returns:
        A cell whose hidden state is `StackHidden(layers)`, one state per layer, and whose parameters are a
        tuple, one entry per layer. Its output is that of the topmost layer, its groups are those of its
        layers.

    Raises:
        ValueError: if there are no cells, or a cell does not take the output of the one below.

    Example:
        >>> import foretrace as ft
        >>> layers = [ft.cells.lstm(hidden=8, inputs=3), ft.cells.gru(hidden=4, inputs=8)]
        >>> cell = ft.cells.stack(layers)
        >>> cell.output(cell.initial_hidden()).shape
        (4,)
    """
    cells = tuple(cells)
    if not cells:
        raise UserError("cells must have at least one cell; got none; give the layers, lowest first.")
    for i, (below, above) in enumerate(itertools.pairwise(cells), start=1):
        output = jax.eval_shape(lambda below=below: below.output(below.initial_hidden()))
        inputs = jax.eval_shape(above.example_input)
        if shapes_of(output) != shapes_of(inputs):
            raise UserError(
                f"cells[{i}] must take the output of cells[{i - 1}], {shapes_of(output)}; got a cell for "
                f"{shapes_of(inputs)}; build it with that many inputs, or give the other an output=."
            )

    def init(key):
        keys = jax.random.split(key, len(cells))
        layers = []
        for cell, k in zip(cells, keys, strict=True):
            layers.append(cell.init(key_after(k, layers)))
        return tuple(layers)

    def step(params, hidden, x):
        layers = []
        for cell, own, state in zip(cells, params, hidden.layers, strict=True):
            layers.append(cell.step(own, state, x))  # (1), (2)
            x = cell.output(layers[-1])
        return StackHidden(tuple(layers))

    return Cell(
        init=init,
        initial_hidden=lambda: StackHidden(tuple(cell.initial_hidden() for cell in cells)),
        step=step,
        example_input=cells[0].example_input,
        output=lambda hidden: cells[-1].output(hidden.layers[-1]),
    )
