"""e-prop, eligibility traces along every unit's own dynamics, and feedback that is not the readout's."""

from typing import Any

import jax
from jaxtyping import Array, Float

from foretrace._types import Cell, Learner
from foretrace.learners._catalogue._requirements import UNITS_APART
from foretrace.learners._catalogue._spec import Spec
from foretrace.learners._engine import learner_of
from foretrace.learners._engine._sparse import unit_rule


def eprop(cell: Cell, *, past_dtype: Any = None) -> Learner:
    """e-prop: an eligibility vector per weight that follows the hidden state of its own unit.

    With own the part of the state Jacobian that passes no weight, a small matrix for every unit (such as
    that of the cell and the output of an `lstm`, or of a membrane and its threshold):

        eligibility <- own eligibility + immediate_jacobian                              (1)
        gradient = credit . eligibility                                                  (2)

    `credit` is the learning signal: of symmetric e-prop that of the readout itself; of random e-prop that
    which comes through `random_feedback`.

    Exactness: biased; every path from unit to unit, and from a unit through its weights to itself, is
    dropped. Where units are one number it is the recursion of `rflo`.

    Cost: memory and time of a forward pass, K P per lane and K^2 P per step with K numbers per unit.

    Args:
        cell: the dynamics; within a step every parameter must act on one unit.
        past_dtype: `jnp.bfloat16` stores the past in half the bytes, rounded at random.

    Returns:
        A learner; `info` is empty.

    Raises:
        ValueError: `past_dtype` is not bfloat16; at `init`, the cell is not of this class.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.lstm(hidden=8, inputs=3)
        >>> learner = ft.eprop(cell)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))
        >>> state.hidden.h.shape
        (8,)

    Source: Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein, Maass, Nature Communications 11, 2020.
    Spikes need a derivative of the cell's own (`jax.custom_jvp`); a leaky readout is a part of the cell or
    of the loss; feedback that is itself learned is not included.
    """
    return learner_of(cell, unit_rule(UNITS_APART, "eprop"), 1, past_dtype=past_dtype)  # (1), (2)


def random_feedback(
    hidden: Float[Array, "... S"], weights: Float[Array, "S O"], feedback: Float[Array, "S O"]
) -> Float[Array, "... O"]:
    """A readout whose credit returns through other weights than it went out.

        y = h W,  dL/dW = h^T dL/dy,  dL/dh = dL/dy B^T                                  (1)

    Args:
        hidden: h, leading axes are lanes.
        weights: W, trained.
        feedback: B, fixed, random as a rule.

    Returns:
        y.

    Example:
        >>> import jax, jax.numpy as jnp, foretrace as ft
        >>> h, w, b = jnp.ones(2), jnp.ones((2, 1)), jnp.array([[3.0], [-1.0]])
        >>> jax.grad(lambda h: ft.random_feedback(h, w, b).sum())(h).tolist()
        [3.0, -1.0]

    Source: Lillicrap, Cownden, Tweed, Akerman, Nature Communications 7:13276, 2016.
    """
    still = jax.lax.stop_gradient(hidden)
    return still @ weights + (hidden - still) @ jax.lax.stop_gradient(feedback)  # (1)


SPEC = Spec(
    factory=eprop,
    call="eprop(cell)",
    influence="each unit's own",
    exact=False,
    unbiased=False,
    memory="K P",
    time="K^2 P",
    requires=UNITS_APART,
    source="Bellec et al. 2020",
    papers=("bellec2020solution",),
    operations=lambda sizes, number, block: sizes.within_units(block),
    order=7,
    takes_block=False,
    takes_past_dtype=True,
)
