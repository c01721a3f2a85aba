"""SK-RTRL: SnAp-1 beside a low-rank sketch of all the rest, and a bound on the error of both."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from foretrace._checks import check_count
from foretrace._types import Cell, Learner
from foretrace.learners._engine._past import Past
from foretrace.learners._engine._sparse import advance, arriving, sensitivity
from foretrace.learners._engine._window import engine
from foretrace.structure._jacobians import linearisation
from foretrace.structure._pattern import by_rows
from foretrace.structure._sparsity import ColumnSets, find_sparsity, sets_within


class SketchInfo(NamedTuple):
    """The certificate at this push, per lane; zeros at steps without one.

    Attributes:
        bound: no less than the Frobenius norm of the error of the influence at the block's end.
        dropped: norm of what the last reduction dropped.
    """

    bound: Float[Array, "..."]
    dropped: Float[Array, "..."]


class SketchPast(NamedTuple):
    """influence ~ near + left right.

    Attributes:
        near: entries reached within one step, as in `SparsePast`.
        left: (S, R), orthonormal columns.
        right: per group and dense leaf (R, C, F, G), its columns in the order of `near`.
        bound: the certificate.
    """

    near: tuple[jax.Array, ...]
    left: jax.Array
    right: tuple[jax.Array, ...]
    bound: jax.Array


def sketch(cell: Cell, *, rank: int, block: int = 1) -> Learner:
    """SK-RTRL: the entries of SnAp-1 exactly, and a matrix of rank `rank` for what they leave out.

    With H the state Jacobian, I the immediate one, M the mask of the non-zeros of I, N the entries kept
    under it, and L (S, R), R (R, P) the sketch:

        X = H L R + (H N - M * (H N))                                                    (1)
        N <- M * (H N) + I                                                               (2)
        L <- the `rank` first left singular vectors of X,  R <- L^T X                    (3)
        bound <- rho bound + |X - L L^T X|,  rho = min(|H|_F, sqrt(|H|_1 |H|_inf))       (4)

    In (4) norms are Frobenius norms but |H|_1 and |H|_inf, the largest sums of absolute values of a column
    and of a row; rho is no less than the spectral norm.

    Exactness: biased, but never by more than is said: |influence - N - L R|_F <= bound, so that a gradient
    errs by at most |credit| bound. Exact for a rank of S; rank 0 would be `snap(cell, order=1)`. The bound
    is for the recursion in exact arithmetic, and holds what (3) loses to rounding.

    Cost: memory K P + rank (S + P) per lane, K as in `snap`; time S^3 + rank^2 P per step, whatever the
    block.

    Args:
        cell: the dynamics, any differentiable cell.
        rank: R; more than the size of the state is taken as that size.
        block: steps that are kept exactly before they join the past, one after the other; 1 is the paper's
            algorithm.

    Returns:
        A learner; `info` is a `SketchInfo`.

    Raises:
        TypeError, ValueError: `rank` or `block` is not an int >= 1.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.rnn(hidden=8, inputs=3)
        >>> learner = ft.sketch(cell, rank=2)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))
        >>> info.bound.shape
        ()

    Source: Yi & Wang, Certified Low-Rank RTRL for Dense RNNs, under review, 2026. There the second part of
    X is first cut to its largest directions, which saves time and loosens the bound; here it enters (3)
    whole. As in `ok`, a gradient is read before the current step joins the past.
    """
    check_count("rank", rank, "for no sketch at all use snap(cell, order=1)")
    check_count("block", block, "1 is the paper's algorithm")

    def past(structure):
        reach, size, dtype = find_sparsity(structure), structure.state_size, structure.dtype
        sets, linearise = sets_within(structure, reach, 1), linearisation(structure, reach)
        depth = min(rank, size)
        everywhere = np.ones((size, size), bool)

        def empty():
            near = tuple(jnp.zeros(part.shape, dtype) for part in sets)
            right = tuple(jnp.zeros((depth, *part.shape[1:]), dtype) for part in sets)
            return SketchPast(near, jnp.zeros((size, depth), dtype), right, jnp.zeros((), dtype))

        def read(past, credit):
            weights = credit @ past.left
            found = [
                arriving(part, near, credit) + jnp.einsum("r,rcfg->cfg", weights, right)
                for part, near, right in zip(sets, past.near, past.right, strict=True)
            ]
            return sensitivity(structure, sets, found)

        def step(past, params, residuals, transport, each):
            jacobian, *_ = transport.jacobians(params, residuals)
            state = by_rows(jacobian, everywhere, np.arange(size))
            _, immediate = linearise(params, residuals, transport)
            moved = jacobian @ past.left
            leaks = [_leak(part, jacobian) for part in sets]
            left, dropped = _directions(moved, past, leaks)  # (3)
            turn, right = left.T @ moved, []
            for old, near, leak in zip(past.right, past.near, leaks, strict=True):
                new = jnp.einsum("rkg,kcfg->rcfg", jnp.einsum("sr,skg->rkg", left, leak), near)
                right.append(jnp.einsum("qr,rcfg->qcfg", turn, old) + new)
            near = advance(structure, sets, past.near, residuals, state, immediate)  # (2)
            bound = _rho(jacobian) * past.bound + dropped  # (4)
            return SketchPast(near, left, tuple(right), bound), dropped

        def push(key, past, block):
            past, dropped = block.fold(step, past)
            return past, SketchInfo(past.bound, dropped[-1])

        return Past(empty, read, push, draws=False)

    return engine(cell, past, block)


def _leak(part: ColumnSets, jacobian: jax.Array) -> jax.Array:
    """What the kept entries of every set pass on to rows that the set does not keep, (S, K, G)."""
    outside = np.ones((len(jacobian), part.rows.shape[1]), bool)
    for rows in part.rows:
        outside[rows[rows >= 0], np.flatnonzero(rows >= 0)] = False
    keep = outside[:, None] & (part.rows >= 0)[None]
    return jnp.where(keep, jnp.take(jacobian, np.maximum(part.rows, 0), axis=1), 0)


def _directions(moved: jax.Array, past: SketchPast, leaks: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The first left singular vectors of X, of which X X^T alone is formed, and the norm of the rest."""
    size, depth = moved.shape
    if depth == size:
        return jnp.eye(size, dtype=moved.dtype), jnp.zeros((), moved.dtype)
    inner, cross, square = (
        jnp.zeros(shape, moved.dtype) for shape in ((depth, depth), (depth, size), (size, size))
    )
    for right, near, leak in zip(past.right, past.near, leaks, strict=True):
        inner = inner + jnp.einsum("rcfg,qcfg->rq", right, right)
        cross = cross + jnp.einsum("rkg,skg->rs", jnp.einsum("rcfg,kcfg->rkg", right, near), leak)
        through = jnp.einsum("skg,klg->slg", leak, jnp.einsum("kcfg,lcfg->klg", near, near))
        square = square + jnp.einsum("slg,tlg->st", through, leak)
    both = moved @ cross
    values, vectors = jnp.linalg.eigh(moved @ inner @ moved.T + both + both.T + square)
    rounding = 4 * size * jnp.finfo(moved.dtype).eps * jnp.sum(jnp.abs(values))
    rest = jnp.sum(jnp.maximum(values[: size - depth], 0))
    return vectors[:, size - depth :], jnp.sqrt(rest + rounding)


def _rho(jacobian: jax.Array) -> jax.Array:
    """No less than the spectral norm."""
    sizes = jnp.abs(jacobian)
    mixed = jnp.sqrt(jnp.max(jnp.sum(sizes, axis=0)) * jnp.max(jnp.sum(sizes, axis=1)))
    return jnp.minimum(jnp.linalg.norm(jacobian), mixed)
