"""KF-RTRL: the influence matrix as one random Kronecker product."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from foretrace._checks import check_count
from foretrace._types import Cell, Learner
from foretrace.learners._engine._factored import Factors, factored_past, keys_for
from foretrace.learners._engine._right_factors import inner
from foretrace.learners._engine._window import engine
from foretrace.learners._kronecker import reduce_by_signs


class KFInfo(NamedTuple):
    """Scalings of the reduction at this step, per lane; zeros at steps without one.

    Attributes:
        scalings: (block + 1, groups), p_j = sqrt(|right_j| / |left_j|) of the past, then of every step.
    """

    scalings: Float[Array, "..."]


def kf_rtrl(cell: Cell, *, block: int = 1) -> Learner:
    """KF-RTRL: the influence matrix as an unbiased random Kronecker product u (x) A per group.

    With H the state Jacobian, f the input factor, D the preactivation Jacobian, c random signs:

        p1 = sqrt(|H A| / |u|),  p2 = sqrt(|D| / |f|)                                    (1)
        u <- c1 p1 u + c2 p2 f,  A <- c1 H A / p1 + c2 D / p2                            (2)

    A block of k steps is one such update with 1 + k terms: f_i (x) Q_i D_i for every step, Q_i the product
    of the state Jacobians after it.

    Exactness: unbiased for fixed parameters. One update has variance
    2 |u| |f| |HA| |D| + 2 <u, f> <HA, D>.

    Cost: memory F + S Z per lane and group; time per step S^3 + S^2 Z / block.

    Args:
        cell: the dynamics; every weight must factorise or be small (see `foretrace.explain`).
        block: steps per reduction; 1 is the paper's algorithm, more is cheaper.

    Returns:
        A learner; `info` is a `KFInfo`.

    Raises:
        TypeError, ValueError: `block` is not an int >= 1. At `init`: the cell does not factorise.

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
    it is read before, with the current step exact: the same recursion and mean, less noise.
    """
    check_count("block", block, "1 is the paper's algorithm")

    def reduced(key, old, new):  # (1), (2)
        left = jnp.concatenate([old.left, new.left])
        widths = jnp.sqrt(jnp.append(inner(old.right, old.right), new.right.squares()))
        left, mixing, scalings = reduce_by_signs(key, left, widths)
        right = new.right.added(mixing[0] * old.right, mixing[None, 1:])
        return Factors(left[None], right), scalings

    def past(structure):
        def compress(key, old, new):
            found = [reduced(*group) for group in zip(keys_for(key, old), old, new, strict=True)]
            none = jnp.zeros((block + 1, 0), structure.dtype)
            scalings = jnp.stack([scaling for _, scaling in found], axis=-1) if found else none
            return [factors for factors, _ in found], KFInfo(scalings)

        return factored_past(structure, "kf_rtrl", 1, compress)

    return engine(cell, past, block)
