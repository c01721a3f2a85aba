"""SK-RTRL: SnAp-1 beside a low-rank sketch of all the rest, and a bound on the error of both."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from foretrace._checks import check_positive_int
from foretrace._types import Cell, Learner
from foretrace.learners._catalogue._requirements import ANY_CELL
from foretrace.learners._catalogue._spec import CellSizes, Number, Operations, Spec
from foretrace.learners._engine import learner_of
from foretrace.learners._engine._block import Block
from foretrace.learners._engine._past import GroupedGradient, PastRule
from foretrace.learners._engine._sparse import (
    SMALL,
    advance_entries,
    arriving,
    product_of_sets,
    scatter_columns,
)
from foretrace.structure._linearisation import linearisation
from foretrace.structure._pattern import by_rows
from foretrace.structure._sparsity import ColumnSets, find_sparsity, sets_within
from foretrace.structure._structure import Structure

# Of a state this small, all directions are tried; LAPACK is quick, and JAX calls it without threads.
_EXACT = 32
# Of a larger one, those of the last step and so many others, after so many products with X X^T.
_PROBES, _POWER_STEPS = 4, 2


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
        squares: squared norms (R,) of its rows, which are orthogonal; zeros where a rank of S needs none.
        bound: the certificate.
    """

    near: tuple[jax.Array, ...]
    left: jax.Array
    right: tuple[jax.Array, ...]
    squares: jax.Array
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
    and of a row; rho is no less than the spectral norm. (4) holds for any L with orthonormal columns: of a
    state of more than 32 numbers, those of (3) are approached by two block power steps from the L before.

    Exactness: biased, but never by more than is said: |influence - N - L R|_F <= bound, so that a gradient
    errs by at most |credit| bound. Exact for a rank of S; rank 0 would be `snap(cell, order=1)`. The bound
    is for the recursion in exact arithmetic, and holds what (3) loses to rounding.

    Cost: memory K P + rank (S + P) per lane, K as in `snap`; time rank^2 P per step and that of the state
    Jacobian, whatever the block.

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
    check_positive_int("rank", rank, "for no sketch at all use snap(cell, order=1)")
    check_positive_int("block", block, "1 is the paper's algorithm")

    return learner_of(cell, lambda structure: _SketchRule(structure, rank), block)


class _SketchRule(PastRule[SketchPast]):
    """Carries the entries of SnAp-1 and the sketch, step by step."""

    is_random = False

    def __init__(self, structure: Structure, rank: int) -> None:
        super().__init__(structure)
        sparsity = find_sparsity(structure)
        self.sets = sets_within(structure, sparsity, 1)
        self.linearise = linearisation(structure, sparsity)
        self.rank = min(rank, structure.state_size)

    def empty(self) -> SketchPast:
        size, dtype = self.structure.state_size, self.structure.dtype
        near = tuple(jnp.zeros(part.shape, dtype) for part in self.sets)
        right = tuple(jnp.zeros((self.rank, *part.shape[1:]), dtype) for part in self.sets)
        left, squares = jnp.zeros((size, self.rank), dtype), jnp.zeros(self.rank, dtype)
        return SketchPast(near, left, right, squares, jnp.zeros((), dtype))

    def read(self, past: SketchPast, credit: jax.Array) -> GroupedGradient:
        weights = credit @ past.left
        columns = [
            arriving(part, near, credit) + jnp.einsum("r,rcfg->cfg", weights, right)
            for part, near, right in zip(self.sets, past.near, past.right, strict=True)
        ]
        return scatter_columns(self.structure, self.sets, columns)

    def push(self, key: jax.Array, past: SketchPast, block: Block) -> tuple[SketchPast, SketchInfo]:
        """Equations (1) to (4) at every step of the block."""
        size = self.structure.state_size
        everywhere = np.ones((size, size), bool)

        def step(past, params, residuals, jacobians, each):
            jacobian, *_ = jacobians.jacobians(params, residuals)
            state = by_rows(jacobian, everywhere, np.arange(size))
            _, immediate = self.linearise(params, residuals, jacobians)
            moved = jacobian @ past.left
            leaks = [_leak(part, jacobian) for part in self.sets]
            left, squares, dropped = _directions(moved, past, leaks)  # (3)
            turn, right = left.T @ moved, []
            for old, near, leak in zip(past.right, past.near, leaks, strict=True):
                new = product_of_sets(jnp.tensordot(left.T, leak, 1), near)
                right.append(jnp.einsum("qr,rcfg->qcfg", turn, old) + new)
            near = advance_entries(self.structure, self.sets, past.near, residuals, state, immediate)  # (2)
            bound = _rho(jacobian) * past.bound + dropped  # (4)
            return SketchPast(near, left, tuple(right), squares, bound), dropped

        past, dropped = block.fold(step, past)
        return past, SketchInfo(past.bound, dropped[-1])


def _leak(part: ColumnSets, jacobian: jax.Array) -> jax.Array:
    """What the kept entries of every set pass on to rows that the set does not keep, (S, K, G)."""
    outside = np.ones((len(jacobian), part.rows.shape[1]), bool)
    for rows in part.rows:
        outside[rows[rows >= 0], np.flatnonzero(rows >= 0)] = False
    keep = outside[:, None] & (part.rows >= 0)[None]
    return jnp.where(keep, jnp.take(jacobian, np.maximum(part.rows, 0), axis=1), 0)


class _Outer:
    """X X^T of equation (1), which is not formed, as the sum of what the sketch and the leaks add to it."""

    def __init__(self, moved: jax.Array, past: SketchPast, leaks: list[jax.Array]) -> None:
        self._moved, self._squares = moved, past.squares
        # Per part the leak (S, K, G), and inner products of the entries that leak with the rows of the
        # sketch (R, K, G), and with each other (K, K, G).
        self._parts = [
            (leak, _per_set(right, near), _per_set(near, near))
            for right, near, leak in zip(past.right, past.near, leaks, strict=True)
        ]

    def times(self, q: jax.Array) -> jax.Array:
        """X X^T q, for q (S, n)."""
        through = self._moved.T @ q
        inner, out = self._squares[:, None] * through, jnp.zeros_like(q)
        for leak, cross, near in self._parts:
            rows, sets, flat = *leak.shape[1:], math.prod(leak.shape[1:])
            leak, cross = leak.reshape(len(leak), flat), cross.reshape(len(cross), flat)
            back = leak.T @ q
            among = product_of_sets(near, back.reshape(rows, 1, sets, q.shape[1]).swapaxes(2, 3))
            inner = inner + cross @ back
            out = out + leak @ (cross.T @ through + among.swapaxes(2, 3).reshape(back.shape))
        return self._moved @ inner + out

    def trace(self) -> jax.Array:
        """Its trace, |X|^2."""
        total = jnp.sum(jnp.sum(self._moved**2, axis=0) * self._squares)
        for leak, cross, near in self._parts:
            met = jnp.tensordot(self._moved.T, leak, 1)
            rows = leak.swapaxes(0, 1)[:, None]
            total = total + 2 * jnp.sum(met * cross) + jnp.sum(_per_set(rows, rows) * near)
        return total


def _per_set(a: jax.Array, b: jax.Array) -> jax.Array:
    """Inner products of rows (I, C, F, G) and rows (K, C, F, G) of the same columns, per set: (I, K, G)."""
    if not 0 < len(b) <= SMALL:
        return jnp.einsum("icfg,kcfg->ikg", a, b)
    zero = jnp.zeros((len(a), len(b), b.shape[3]), b.dtype)

    # Weight by weight: XLA:CPU sums over an axis in the middle several times slower.
    def add(f, total):
        left, right = (jax.lax.dynamic_index_in_dim(x, f, 2, keepdims=False) for x in (a, b))
        return total + sum(left[:, None, c] * right[None, :, c] for c in range(b.shape[1]))

    return jax.lax.fori_loop(0, b.shape[2], add, zero)


def _directions(
    moved: jax.Array, past: SketchPast, leaks: list[jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """L of equation (3), the squared norms of the rows of L^T X, and the norm of what L leaves out of X."""
    size, depth = moved.shape
    if depth == size:
        return jnp.eye(size, dtype=moved.dtype), past.squares, jnp.zeros((), moved.dtype)
    outer = _Outer(moved, past, leaks)
    if size <= max(_EXACT, depth + _PROBES):
        basis = jnp.eye(size, dtype=moved.dtype)
    else:
        basis = jnp.concatenate([past.left, jnp.asarray(_probes(size), moved.dtype)], axis=1)
        for _ in range(_POWER_STEPS):
            basis, _ = jnp.linalg.qr(outer.times(basis))
    # The best within the basis (Rayleigh and Ritz); the eigenvalues ascend.
    values, vectors = jnp.linalg.eigh(basis.T @ outer.times(basis))
    squares, total = jnp.maximum(values[-depth:], 0), outer.trace()
    rest = jnp.maximum(total - jnp.sum(squares), 0)
    rounding = 4 * size * jnp.finfo(moved.dtype).eps * total
    return basis @ vectors[:, -depth:], squares, jnp.sqrt(rest + rounding)


def _probes(size: int) -> np.ndarray:
    """Directions (S, n) in which a basis looks for what it lacks."""
    return np.random.default_rng(0).normal(size=(size, _PROBES))


def _rho(jacobian: jax.Array) -> jax.Array:
    """No less than the spectral norm."""
    sizes = jnp.abs(jacobian)
    mixed = jnp.sqrt(jnp.max(jnp.sum(sizes, axis=0)) * jnp.max(jnp.sum(sizes, axis=1)))
    return jnp.minimum(jnp.linalg.norm(jacobian), mixed)


def _operations(sizes: CellSizes, rank: int, block: int) -> Operations:
    sets, size = sizes.column_sets(1), sizes.state
    columns = sum(math.prod(part.shape[1:]) for part in sets)
    entries = sum(math.prod(part.shape) for part in sets)
    reached = sum(part.rows.size for part in sets)
    width = size if size <= _EXACT else min(rank + _PROBES, size)
    return (
        sizes.window(block)
        | sizes.sparse_influence(sets)
        | {
            "jacobians": sizes.jacobians(1),
            "mix": 4 * rank**2 * columns + 4 * rank * entries + 4 * size * reached * (5 * width),
            "decompose": 1e4 + 10 * size * width**2,
        }
    )


SPEC = Spec(
    factory=sketch,
    call="sketch(cell, rank=R)",
    influence="SnAp-1 and R outer products, error bounded",
    exact=False,
    unbiased=False,
    memory="K P + R (S + P)",
    time="R^2 P",
    requires=ANY_CELL,
    source="Yi & Wang 2026",
    papers=("yi2026certified",),
    operations=_operations,
    order=5,
    number=Number("rank", 8, recommended=(8,)),
)
