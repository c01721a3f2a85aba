"""R-KF-RTRL, the Kronecker product of KF-RTRL the other way round."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from foretrace._checks import check_positive_int
from foretrace._types import Cell, Learner
from foretrace.learners._catalogue._requirements import FACTORISES
from foretrace.learners._engine import learner_of
from foretrace.learners._engine._block import Block
from foretrace.learners._engine._kronecker_sum import keys_for
from foretrace.learners._engine._past import (
    GroupedGradient,
    PastRule,
    Terms,
    empty_dense,
    push_dense,
    read_dense,
)
from foretrace.learners._kronecker import balance, random_signs
from foretrace.structure._structure import Structure


class RKFInfo(NamedTuple):
    """Scalings of the reduction at this step, per lane; zeros at steps without one.

    Attributes:
        scalings: (block + 1, groups), p of the past, then of every step.
    """

    scalings: Float[Array, "..."]


class Reversed(NamedTuple):
    """influence[s, f, z] ~ b[s, f] a[z]: a (Z,), b (S, F)."""

    a: jax.Array
    b: jax.Array


class RKFPast(NamedTuple):
    """Per group its `Reversed`; per dense leaf its exact influence (S, size)."""

    groups: tuple[Reversed, ...]
    dense: tuple[jax.Array, ...]


def r_kf_rtrl(cell: Cell, *, block: int = 1) -> Learner:
    """R-KF-RTRL: the influence matrix as an unbiased random product B (x) A with one entry of A per z.

    Where KF-RTRL keeps the input factor apart, this keeps the pre-activation apart. With H the state
    Jacobian, f the input factor, D the preactivation Jacobian, nu a random sign for every pre-activation:

        p0 = sqrt(|H B| / |A|),  p1 = sqrt(|D nu| |f| / |nu|)                            (1)
        A <- p0 A + p1 nu,  B <- H B / p0 + (D nu) f^T / p1                              (2)

    A block of k steps is one such update with 1 + k terms, each step with signs nu_i of its own:
    (Q_i D_i nu_i) f_i^T and nu_i, Q_i the product of the state Jacobians after it.

    Exactness: unbiased for fixed parameters. The scalings (1) are those of least variance for the signs
    that were drawn. Even the first step joins the past with noise, unlike that of KF-RTRL, and the noise
    grows with the number of units like that of UORO (docs/contrib.md).

    Cost: memory Z + S F per lane and group; time per step S^3 + S^2 F / block.

    Args:
        cell: the dynamics; every weight must factorise or be small (see `foretrace.explain`).
        block: steps per reduction; 1 is the paper's algorithm, more is cheaper.

    Returns:
        A learner; `info` is an `RKFInfo`.

    Raises:
        TypeError, ValueError: `block` is not an int >= 1. At `init`: the cell does not factorise.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.rnn(hidden=8, inputs=3)
        >>> learner = ft.contrib.r_kf_rtrl(cell)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))
        >>> state.past.groups[0].b.shape  # lanes, S, F
        (1, 8, 12)

    Source: Marschall, Cho, Savin, JMLR 21(135), 2020. Their A and B start as random numbers, here at zero,
    which adds no noise; as in `kf_rtrl`, a gradient is read before the current step joins the past. Blocks
    longer than 1 are ours.
    """
    check_positive_int("block", block, "1 is the paper's algorithm")

    return learner_of(cell, _RKFRule, block)


class _RKFRule(PastRule[RKFPast]):
    """Carries one `Reversed` product per group."""

    def __init__(self, structure: Structure) -> None:
        FACTORISES.check(structure, "r_kf_rtrl")
        super().__init__(structure)

    def empty(self) -> RKFPast:
        structure, dtype = self.structure, self.structure.dtype
        shapes = [(g.preact_size, (structure.state_size, g.factor_size)) for g in structure.groups]
        groups = tuple(Reversed(jnp.zeros(a, dtype), jnp.zeros(b, dtype)) for a, b in shapes)
        return RKFPast(groups, empty_dense(structure))

    def read(self, past: RKFPast, credit: jax.Array) -> GroupedGradient:
        groups = tuple(Terms((credit @ g.b)[None], g.a[None]) for g in past.groups)
        return GroupedGradient(groups, read_dense(self.structure, past.dense, credit))

    def push(self, key: jax.Array, past: RKFPast, block: Block) -> tuple[RKFPast, RKFInfo]:
        """Equations (1) and (2) of every group."""
        jacobian, rights, dense = block.matrices()
        keys = keys_for(key, past.groups)
        pairs = [
            _joined(k, g._replace(b=jacobian @ g.b), f, right.dense)
            for k, g, f, right in zip(keys, past.groups, block.factors(), rights, strict=True)
        ]
        none = jnp.zeros((block.length + 1, 0), self.structure.dtype)
        scalings = jnp.stack([p for _, p in pairs], axis=-1) if pairs else none
        groups = tuple(group for group, _ in pairs)
        return RKFPast(groups, push_dense(jacobian, past.dense, dense)), RKFInfo(scalings)


def _joined(
    key: jax.Array, moved: Reversed, factors: jax.Array, rights: jax.Array
) -> tuple[Reversed, jax.Array]:
    """Equations (1) and (2): the moved past, f_i (k, F) and Q_i D_i (k, S, Z)."""
    count, _, width = rights.shape
    nu = random_signs(key, count * width, rights.dtype).reshape(count, width)
    projected = (rights @ nu[:, :, None])[:, :, 0]
    a = jnp.concatenate([moved.a[None], nu])
    new = jnp.linalg.norm(projected, axis=1) * jnp.linalg.norm(factors, axis=1)
    scalings, inverses = balance(
        jnp.linalg.norm(a, axis=1), jnp.append(jnp.linalg.norm(moved.b), new)
    )  # (1)
    b = inverses[0] * moved.b + (inverses[1:, None] * projected).T @ factors  # (2)
    return Reversed(scalings @ a, b), scalings
