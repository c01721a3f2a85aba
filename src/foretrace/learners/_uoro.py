"""UORO: the influence matrix as one random rank-one matrix."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from foretrace._checks import check_number, check_positive_int
from foretrace._types import Cell, Learner
from foretrace.learners._catalogue._requirements import ANY_CELL
from foretrace.learners._catalogue._spec import CellSizes, Operations, Spec
from foretrace.learners._engine import learner_of
from foretrace.learners._engine._block import Steps
from foretrace.learners._engine._past import GroupedGradient, PastRule, Rows, norm, zero_gradient
from foretrace.learners._kronecker import random_signs
from foretrace.structure._structure import Structure


class UOROInfo(NamedTuple):
    """Scalings of the update at this step, per lane; zeros at steps without one.

    Attributes:
        rho0: sqrt(|w| / |s'|), of the past.
        rho1: sqrt(|g| / |nu|), of the new term.
    """

    rho0: Float[Array, "..."]
    rho1: Float[Array, "..."]


class UOROPast(NamedTuple):
    """influence ~ s (x) w.

    Attributes:
        s: (S,), the factor of the hidden state.
        w: the factor of the parameters.
        epsilon: keeps the scalings finite.
    """

    s: jax.Array
    w: GroupedGradient
    epsilon: jax.Array


def uoro(
    cell: Cell, *, block: int = 1, age: int = 0, epsilon: float = 1e-7, past_dtype: Any = None
) -> Learner:
    """UORO: the influence matrix as an unbiased random rank-one matrix s (x) w.

        s' = state_jacobian s,  g = nu^T immediate_jacobian,  nu random signs                    (1)
        rho0 = sqrt((|w| + epsilon) / (|s'| + epsilon)),
        rho1 = sqrt((|g| + epsilon) / (|nu| + epsilon))                                          (2)
        s <- rho0 s' + rho1 nu,  w <- w / rho0 + g / rho1                                        (3)

    A block of k steps is one transition of (1): s is pushed forward and nu pulled back through all of it,
    and credit inside it is exact. This is memory-T UORO, T = k.

    Exactness: unbiased for fixed parameters.

    Cost: memory S + P per lane; time of a forward and a backward pass per step. An age of 1 adds a block to
    the way back and to the window.

    Args:
        cell: the dynamics, any differentiable cell.
        block: steps per update of the past; 1 is the paper's algorithm.
        epsilon: as in (2).
        age: 1 keeps steps exactly for a block more before they join the past; most of the noise goes.
        past_dtype: `jnp.bfloat16` stores the past in half the bytes, rounded at random.

    Returns:
        A learner; `info` is a `UOROInfo`.

    Raises:
        TypeError, ValueError: `block` is not an int >= 1, `epsilon` not a number > 0, or `past_dtype` not
            bfloat16.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.gru(hidden=8, inputs=3)
        >>> learner = ft.uoro(cell)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))
        >>> state.hidden.shape
        (8,)

    Source: Tallec & Ollivier, ICLR 2018, Algorithm 1; `epsilon` is 1e-5 in the authors' code. The age
    is ours.
    """
    check_positive_int("block", block, "1 is the paper's algorithm")
    check_number("epsilon", epsilon, "> 0", "1e-7 is the default")

    def rule(structure: Structure) -> _UORORule:
        return _UORORule(structure, epsilon)

    return learner_of(cell, rule, block, age=age, past_dtype=past_dtype)


class _UORORule(PastRule[UOROPast]):
    """Carries one outer product."""

    def __init__(self, structure: Structure, epsilon: float) -> None:
        super().__init__(structure)
        self.epsilon = epsilon

    def empty(self) -> UOROPast:
        structure = self.structure
        return UOROPast(
            jnp.zeros(structure.state_size, structure.dtype),
            zero_gradient(structure),
            jnp.full((), self.epsilon, structure.dtype),
        )

    def read(self, past: UOROPast, credit: jax.Array) -> GroupedGradient:
        weight = credit @ past.s
        groups = tuple(Rows(weight[None], w[None]) for w in past.w.groups)
        return GroupedGradient(groups, jax.tree.map(lambda w: weight * w, past.w.dense))

    def push(self, key: jax.Array, past: UOROPast, block: Steps) -> tuple[UOROPast, UOROInfo]:
        """Equations (1) to (3)."""
        s, w, epsilon = past
        signs = random_signs(key, self.structure.state_size, self.structure.dtype)
        nu = jnp.where(block.ends_empty, 0, signs)
        moved = block.pushforward(s)  # (1)
        _, g = block.pullback(nu)
        size = jnp.where(block.past_survives, norm(w), 0)
        rho0 = jnp.sqrt((size + epsilon) / (norm(moved) + epsilon))  # (2)
        rho1 = jnp.sqrt((norm(g) + epsilon) / (norm(nu) + epsilon))
        s = rho0 * moved + rho1 * nu  # (3)
        scale = jnp.where(block.past_survives, 1 / rho0, 0)
        groups = tuple(
            scale * old + new.left.T @ (new.right / rho1)
            for old, new in zip(w.groups, g.groups, strict=True)
        )
        dense = jax.tree.map(lambda old, new: scale * old + new / rho1, w.dense, g.dense)
        return UOROPast(s, GroupedGradient(groups, dense), epsilon), UOROInfo(rho0, rho1)


def _operations(sizes: CellSizes, number: int, block: int) -> Operations:
    w = sizes.weights
    return sizes.window(block) | {"read": 2 * w, "mix": 8 * w / block, "jacobians": 4 * w}


SPEC = Spec(
    factory=uoro,
    call="uoro(cell)",
    influence="one outer product",
    exact=False,
    unbiased=True,
    memory="S + P",
    time="P",
    requires=ANY_CELL,
    source="Tallec & Ollivier 2018",
    papers=("tallec2018unbiased",),
    operations=_operations,
    order=4,
    takes_age=True,
    takes_past_dtype=True,
)
