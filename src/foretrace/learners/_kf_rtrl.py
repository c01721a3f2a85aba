"""KF-RTRL: the influence matrix as one random Kronecker product."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from foretrace._checks import check_positive_int
from foretrace._types import Cell, Learner
from foretrace.learners._catalogue._requirements import FACTORISES
from foretrace.learners._catalogue._spec import CellSizes, Operations, Spec
from foretrace.learners._engine import learner_of
from foretrace.learners._engine._kronecker_sum import (
    Factors,
    KroneckerSumRule,
    NewTerms,
    keys_for,
    new_products,
)
from foretrace.learners._engine._right_factors import inner
from foretrace.learners._kronecker import reduce_by_signs
from foretrace.structure._structure import Structure


class KFInfo(NamedTuple):
    """Scalings of the reduction at this step, per lane; zeros at steps without one.

    Attributes:
        scalings: (block + 1, groups), p_j = sqrt(|right_j| / |left_j|) of the past, then of every step.
    """

    scalings: Float[Array, "..."]


def kf_rtrl(cell: Cell, *, block: int = 1, age: int = 0, past_dtype: Any = None) -> Learner:
    """KF-RTRL: the influence matrix as an unbiased random Kronecker product u (x) A per group.

    With H the state Jacobian, f the input factor, D the preactivation Jacobian, c random signs:

        p1 = sqrt(|H A| / |u|),  p2 = sqrt(|D| / |f|)                                    (1)
        u <- c1 p1 u + c2 p2 f,  A <- c1 H A / p1 + c2 D / p2                            (2)

    A block of k steps is one such update with 1 + k terms: f_i (x) Q_i D_i for every step, Q_i the product
    of the state Jacobians after it.

    Exactness: unbiased for fixed parameters. One update has variance
    2 |u| |f| |HA| |D| + 2 <u, f> <HA, D>.

    Cost: memory F + S Z per lane and group; time per step S^3 + S^2 Z / block. An age
    of 1 adds S^3, and a block to the way back and to the window.

    Args:
        cell: the dynamics; every weight must factorise or be small (see `foretrace.explain`).
        block: steps per reduction; 1 is the paper's algorithm, more is cheaper.
        age: 1 keeps steps exactly for a block more before they join the past; most of the noise goes.
        past_dtype: `jnp.bfloat16` stores the past in half the bytes, rounded at random.

    Returns:
        A learner; `info` is a `KFInfo`.

    Raises:
        TypeError, ValueError: `block` is not an int >= 1, `age` not 0 or 1, or `past_dtype` not bfloat16.
            At `init`: the cell does not factorise.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.rnn(hidden=8, inputs=3)
        >>> learner = ft.kf_rtrl(cell)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))
        >>> learner.grad(params, state, jax.numpy.ones(8))["bias"].shape
        (8,)

    Source: Mujika, Meier, Steger, NeurIPS 2018, Algorithm 1. The paper reads the gradient after (2), here
    it is read before, with the current step exact: the same recursion and mean, less noise. Blocks longer
    than 1, and the age, are ours.
    """
    check_positive_int("block", block, "1 is the paper's algorithm")

    return learner_of(cell, _KFRule, block, age=age, past_dtype=past_dtype)


class _KFRule(KroneckerSumRule):
    """Reduces to one product with random signs."""

    def __init__(self, structure: Structure) -> None:
        FACTORISES.check(structure, "kf_rtrl")
        super().__init__(structure, rank=1)

    def reduce(
        self, key: jax.Array, old: list[Factors], new: list[NewTerms]
    ) -> tuple[list[Factors], KFInfo]:
        """Equations (1) and (2) of every group."""
        pairs = [_reduced(*group) for group in zip(keys_for(key, old), old, new, strict=True)]
        if not pairs:
            return [], KFInfo(jnp.zeros((0, 0), self.structure.dtype))
        return [factors for factors, _ in pairs], KFInfo(jnp.stack([p for _, p in pairs], axis=-1))


def _reduced(key: jax.Array, old: Factors, new: NewTerms) -> tuple[Factors, jax.Array]:
    """One group's product, and the scalings of its terms."""
    left = jnp.concatenate([old.left, new.left])
    widths = jnp.sqrt(jnp.append(inner(old.right, old.right), new.right.squares()))
    left, mixing, scalings = reduce_by_signs(key, left, widths)  # (1)
    return Factors(left[None], new.right.added(mixing[0] * old.right, mixing[None, 1:])), scalings  # (2)


def _operations(sizes: CellSizes, number: int, block: int) -> Operations:
    joint = 1 + new_products(sizes, block)
    return sizes.window(block) | {
        "jacobians": sizes.jacobians(block),
        "move": 2 * sizes.state * (sizes.area + sizes.state * sizes.dense) / block,
        "read": 2 * sizes.area,
        "gram": 2 * joint * sizes.area / block,
        "mix": 2 * joint * sizes.area / block,
    }


SPEC = Spec(
    factory=kf_rtrl,
    call="kf_rtrl(cell)",
    influence="one Kronecker product",
    exact=False,
    unbiased=True,
    memory="F + S Z",
    time="S^2 Z",
    requires=FACTORISES,
    source="Mujika et al. 2018",
    papers=("mujika2018approximating",),
    operations=_operations,
    order=2,
    takes_age=True,
    takes_past_dtype=True,
)
