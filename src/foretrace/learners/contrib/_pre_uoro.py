"""PreUORO: UORO with its noise on the pre-activations."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from foretrace._checks import check_number, check_positive_int
from foretrace._types import Cell, Learner
from foretrace.learners._catalogue._requirements import FACTORISES
from foretrace.learners._engine import learner_of
from foretrace.learners._engine._block import Block
from foretrace.learners._engine._past import (
    GroupedGradient,
    PastRule,
    empty_dense,
    norm,
    push_dense,
    read_dense,
    zero_gradient,
)
from foretrace.learners._kronecker import random_signs
from foretrace.structure._structure import Structure


class PreUOROInfo(NamedTuple):
    """Scalings of the update at this step, per lane; zeros at steps without one.

    Attributes:
        rho0: sqrt(|w| / |s'|), of the past.
        rho1: sqrt(|f (x) nu| / |D nu|), of the new term.
    """

    rho0: Float[Array, "..."]
    rho1: Float[Array, "..."]


class PreUOROPast(NamedTuple):
    """influence ~ s (x) w beside what is exact.

    Attributes:
        s: (S,), the factor of the hidden state.
        w: per group the factor of its weights, (F, Z).
        dense: per dense leaf its exact influence (S, size).
        epsilon: keeps the scalings finite.
    """

    s: jax.Array
    w: tuple[jax.Array, ...]
    dense: tuple[jax.Array, ...]
    epsilon: jax.Array


def pre_uoro(cell: Cell, *, block: int = 1, epsilon: float = 1e-7) -> Learner:
    """PreUORO: an unbiased random rank-one influence s (x) w, its noise in the space of pre-activations.

    UORO projects the immediate Jacobian, f (x) D per group, from the side of the state; this does it from
    the side of the pre-activations, so that a weight shares a sign with those of its own z alone and f
    stays exact. With H the state Jacobian, nu a random sign for every pre-activation of every group:

        s' = H s                                                                         (1)
        rho0 = sqrt((|w| + epsilon) / (|s'| + epsilon)),
        rho1 = sqrt((|f (x) nu| + epsilon) / (|D nu| + epsilon))                         (2)
        s <- rho0 s' + rho1 D nu,  w <- w / rho0 + f (x) nu / rho1                       (3)

    A block of k steps is one transition: s' and the sum of D_i nu_i are pushed through all of it, each step
    with signs of its own, and (2), (3) follow once, at its end.

    Exactness: unbiased for fixed parameters. What does not factorise and is small is tracked exactly. With
    several pre-activations per unit it is noisier than `uoro` (docs/contrib.md).

    Cost: memory S + P per lane; time of a forward and a backward pass per step. For leaves that do not
    factorise, S memory and S^2 time for each of their numbers beside that.

    Args:
        cell: the dynamics; every weight must factorise or be small (see `foretrace.explain`).
        block: steps per update of the past; 1 is the paper's algorithm.
        epsilon: as in (2).

    Returns:
        A learner; `info` is a `PreUOROInfo`.

    Raises:
        TypeError, ValueError: `block` is not an int >= 1, `epsilon` not a number > 0. At `init`: the cell
            does not factorise.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.gru(hidden=8, inputs=3)
        >>> learner = ft.contrib.pre_uoro(cell)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))
        >>> state.hidden.shape
        (8,)

    Source: Cooijmans & Martens, arXiv 1902.02405, 2019, the projection in the space of pre-activations. Of
    their further changes none is here: the scalings are the two numbers of UORO, not matrices, and the
    signs are independent. As in `uoro`, a gradient is read before the current step joins the past.
    """
    check_positive_int("block", block, "1 is the paper's algorithm")
    check_number("epsilon", epsilon, "> 0", "1e-7 is the default")

    return learner_of(cell, lambda structure: _PreUORORule(structure, epsilon), block)


class _PreUORORule(PastRule[PreUOROPast]):
    """Carries one outer product, with a sign per pre-activation."""

    def __init__(self, structure: Structure, epsilon: float) -> None:
        FACTORISES.check(structure, "pre_uoro")
        super().__init__(structure)
        self.epsilon = epsilon

    def empty(self) -> PreUOROPast:
        structure = self.structure
        s, w = jnp.zeros(structure.state_size, structure.dtype), zero_gradient(structure).groups
        return PreUOROPast(s, w, empty_dense(structure), jnp.full((), self.epsilon, structure.dtype))

    def read(self, past: PreUOROPast, credit: jax.Array) -> GroupedGradient:
        weight = credit @ past.s
        dense = read_dense(self.structure, past.dense, credit)
        return GroupedGradient(tuple(weight * w for w in past.w), dense)

    def push(self, key: jax.Array, past: PreUOROPast, block: Block) -> tuple[PreUOROPast, PreUOROInfo]:
        """Equations (1) to (3)."""
        structure, dtype = self.structure, self.structure.dtype
        ends = list(itertools.accumulate((g.preact_size for g in structure.groups), initial=0))

        def step(carry, params, residuals, jacobians, signs):
            s, w, projected, new, dense = carry
            nu = [signs[i:j] for i, j in itertools.pairwise(ends)]
            s = structure.pushforward(params, residuals, s)  # (1)
            projected = structure.pushforward(params, residuals, projected, nu)
            factors = structure.factors(residuals)
            new = tuple(a + jnp.outer(f, n) for a, f, n in zip(new, factors, nu, strict=True))
            # The compiler drops the state Jacobian where no dense leaf needs it.
            jacobian, _, immediate = jacobians.jacobians(params, residuals)
            return (s, w, projected, new, push_dense(jacobian, dense, immediate)), None

        # One draw for all groups: they share s, so that their signs must not be alike.
        signs = random_signs(key, block.length * ends[-1], dtype).reshape(block.length, ends[-1])
        zero = jnp.zeros(structure.state_size, dtype)
        carry = past.s, past.w, zero, zero_gradient(structure).groups, past.dense
        (s, w, projected, new, dense), _ = block.fold(step, carry, signs)
        epsilon = past.epsilon
        rho0 = jnp.sqrt((norm(w) + epsilon) / (norm(s) + epsilon))  # (2)
        rho1 = jnp.sqrt((norm(new) + epsilon) / (norm(projected) + epsilon))
        s = rho0 * s + rho1 * projected  # (3)
        w = tuple(a / rho0 + b / rho1 for a, b in zip(w, new, strict=True))
        return PreUOROPast(s, w, dense, epsilon), PreUOROInfo(rho0, rho1)
