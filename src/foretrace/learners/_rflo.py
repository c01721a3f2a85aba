"""RFLO, random-feedback local online learning."""

from typing import Any

from foretrace._types import Cell, Learner
from foretrace.learners._catalogue._requirements import SINGLE_UNITS
from foretrace.learners._catalogue._spec import Spec
from foretrace.learners._engine import learner_of
from foretrace.learners._engine._sparse import unit_rule


def rflo(cell: Cell, *, past_dtype: Any = None) -> Learner:
    """RFLO: a trace per weight that decays with the leak of its unit.

    With leak the part of the state Jacobian that passes no weight, a number for every unit (1 - alpha in
    h' = (1 - alpha) h + alpha f(W h + V x + b)):

        trace <- leak * trace + immediate_jacobian                                       (1)
        gradient = credit . trace                                                        (2)

    Local: what a weight's trace needs is known at the weight. For the feedback that the paper has in its
    name, give the readout's credit through `random_feedback`.

    Exactness: biased; every path from unit to unit through the recurrent weights is dropped. Without a
    leak, as in `rnn`, it is `immediate`.

    Cost: memory and time of a forward pass, P per lane.

    Args:
        cell: the dynamics; every parameter must act on one entry of the state, and without the weights
            every entry depend on none but itself.
        past_dtype: `jnp.bfloat16` stores the past in half the bytes, rounded at random.

    Returns:
        A learner; `info` is empty.

    Raises:
        ValueError: `past_dtype` is not bfloat16; at `init`, the cell is not of this class.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.highway(hidden=8, inputs=3)
        >>> learner = ft.rflo(cell)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))
        >>> state.hidden.shape
        (8,)

    Source: Murray, eLife 8:e43299, 2019, for the leaky network above; here the leak may depend on the
    state, as a gate does, and is then taken as it is at every step.
    """
    return learner_of(cell, unit_rule(SINGLE_UNITS, "rflo"), 1, past_dtype=past_dtype)  # (1), (2)


SPEC = Spec(
    factory=rflo,
    call="rflo(cell)",
    influence="each unit's own leak",
    exact=False,
    unbiased=False,
    memory="P",
    time="P",
    requires=SINGLE_UNITS,
    source="Murray 2019",
    papers=("murray2019local",),
    operations=lambda sizes, number, block: sizes.within_units(block),
    order=8,
    takes_block=False,
    takes_past_dtype=True,
)
