"""low_rank: an exact window of two blocks, and a past of few directions of the hidden state."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from foretrace._checks import UserError, check_positive_int
from foretrace._types import Cell, Learner
from foretrace.learners._catalogue._requirements import ANY_CELL
from foretrace.learners._catalogue._spec import CellSizes, Number, Operations, Spec
from foretrace.learners._engine import learner_of
from foretrace.learners._engine._block import AgedBlock
from foretrace.learners._engine._past import GroupedGradient, PreparedRule, Rows, zero_dense
from foretrace.learners._kronecker import random_signs, reduce_optimally

# Under a name of its own, since a mean over all signs needs only those of (4) and (5).
from foretrace.learners._kronecker import random_signs as probe_signs
from foretrace.structure._structure import Structure


class LowRankInfo(NamedTuple):
    """What the compression at this block's end did, per lane; zeros at steps without one.

    Attributes:
        residual: an unbiased estimate of the squared norm of what the range (3) missed; 0 where nothing
            can be missed, and with `unbiased=False`, which does not look.
        variance: squared error of this reduction's draw (5), the same for every draw.
        share: the part of the singular mass that was mixed.
    """

    residual: Float[Array, "..."]
    variance: Float[Array, "..."]
    share: Float[Array, "..."]


class LowRankPast(NamedTuple):
    """The matrix L W, of what lies before the older block of the window.

    Attributes:
        left: the columns of L, (R, S).
        right: the rows of W, per group (R, F, Z).
        dense: and per dense leaf (R, size).
    """

    left: jax.Array
    right: tuple[jax.Array, ...]
    dense: tuple[jax.Array, ...]


def low_rank(
    cell: Cell,
    *,
    rank: int = 8,
    probes: int | None = None,
    block: int = 16,
    unbiased: bool = True,
    past_dtype: Any = None,
) -> Learner:
    """low_rank: the newest one to two blocks exactly, all before as an unbiased matrix of rank `rank`.

    What is older than a block has been multiplied by the state Jacobians of all its steps, of which, in
    networks that have learned to remember, few directions of the hidden state survive. Block b begins at
    a_b; f_i are the input factors and D_i the preactivation Jacobians of step i; Q(i -> a) carries a
    tangent from after step i to a. At a_b

        influence = L W + sum over the steps i of block b-1 of f_i (x) Q(i -> a_b) D_i            (1)

    with L (S, R) and W (R, P) for all steps before block b-1. At the end of block b, with
    Q = Q(a_b -> a_(b+1)),

        T = Q (L W + sum_i f_i (x) Q(i -> a_b) D_i)                                               (2)

    has to be compressed:

        U <- an orthonormal basis of Q L and of `probes` tangents at a_(b+1), which start as
             |f_i| eta_i, eta_i random signs, in the pre-activations of block b-1                 (3)
        B <- [U, (1 - U U^T) nu], nu random signs:  E[B B^T] = 1                                  (4)
        L, W <- the unbiased reduction of B (B^T T) to `rank` terms, of least variance            (5)

    Rows of B^T T are credits that run back through both blocks: tangent and cotangent maps are all that is
    asked of a cell.

    Exactness: unbiased for fixed parameters; exact while no step is older than two blocks, and with a rank
    of S. Without (4), `unbiased=False`, the mean is U U^T T, and the noise still less.

    Cost: memory rank (S + P) per lane and a window of two blocks; time per step some 6 rank + 4 probes
    + 3 block products of a vector with the weights, whatever the size of the network.

    Args:
        cell: the dynamics, any differentiable cell.
        rank: directions kept, R.
        probes: random tangents that look for new directions, beside the R old ones; as many by default.
        block: steps per compression.
        unbiased: whether what the basis misses is represented by a random direction.
        past_dtype: `jnp.bfloat16` stores the past in half the bytes, rounded at random.

    Returns:
        A learner; `info` is a `LowRankInfo`.

    Raises:
        TypeError, ValueError: `rank`, `probes` or `block` is not an int >= 1, `rank` is above S, or
            `past_dtype` not bfloat16.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.gru(hidden=8, inputs=3)
        >>> learner = ft.low_rank(cell, rank=2, probes=2, block=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))
        >>> state.hidden.shape
        (8,)

    Source: ours. The range by random tangents is that of Halko, Martinsson, Tropp, SIAM Review 53(2), 2011;
    a random direction for what a basis misses: Hutch++, Meyer et al., SOSA 2021; (5): Benzing et al., ICML
    2019, there between Kronecker factors.
    """
    check_positive_int("rank", rank, "for the exact influence matrix use rtrl(cell)")
    probes = check_positive_int("probes", rank if probes is None else probes, "the default is the rank")
    check_positive_int("block", block, "16 is the default")

    return learner_of(
        cell,
        lambda structure: _LowRankRule(structure, rank, probes, unbiased),
        block,
        age=1,
        past_dtype=past_dtype,
    )


class _Prepared(NamedTuple):
    """Of one lane's block.

    Attributes:
        basis: the columns of B, (q, S).
        old: C (q, R), the rows of B^T T that fall on those of W.
        factors: per group f_i (k, F).
        new: per group the preactivation credits z_i (q, k, Z): B^T T = C W + sum_i f_i (x) z_i.
        dense: per dense leaf the same rows beside C W, (q, size).
    """

    basis: jax.Array
    old: jax.Array
    factors: tuple[jax.Array, ...]
    new: tuple[jax.Array, ...]
    dense: tuple[jax.Array, ...]


class _LowRankRule(PreparedRule[LowRankPast]):
    """Carries a matrix of rank `rank`."""

    def __init__(self, structure: Structure, rank: int, probes: int, unbiased: bool) -> None:
        super().__init__(structure)
        if rank > structure.state_size:
            raise UserError(
                f"rank must be at most the {structure.state_size} numbers of the hidden state; got {rank}; "
                "for the exact influence matrix use rtrl(cell), which is cheaper there."
            )
        self.rank, self.probes = rank, probes
        self.basis_size = min(rank + probes, structure.state_size)
        self.has_residual = unbiased and self.basis_size < structure.state_size

    def empty(self) -> LowRankPast:
        structure, rank = self.structure, self.rank
        return LowRankPast(
            jnp.zeros((rank, structure.state_size), structure.dtype),
            tuple(
                jnp.zeros((rank, g.factor_size, g.preact_size), structure.dtype) for g in structure.groups
            ),
            tuple(jnp.zeros((rank, leaf.size), structure.dtype) for leaf in structure.dense),
        )

    def read(self, past: LowRankPast, credit: jax.Array) -> GroupedGradient:
        weights = past.left @ credit
        dense = tuple(
            (weights @ rows).reshape(zero.shape)
            for rows, zero in zip(past.dense, zero_dense(self.structure), strict=True)
        )
        return GroupedGradient(tuple(Rows(weights, matrices) for matrices in past.right), dense)

    def prepare(self, key: jax.Array, past: LowRankPast, block: AgedBlock) -> _Prepared:
        """Equations (3) and (4), and the credits that make the rows B^T T."""
        probe_key, residual_key = jax.random.split(key)
        factors = block.factors()
        basis = self._basis(probe_key, residual_key, past, block, factors)
        credits, terms = jax.vmap(block.pullback)(basis)
        return _Prepared(
            basis,
            credits @ past.left.T,
            factors,
            tuple(group.right for group in terms.groups),
            tuple(leaf.reshape(len(basis), -1) for leaf in terms.dense),
        )

    def finish(
        self, key: jax.Array, past: LowRankPast, prepared: _Prepared
    ) -> tuple[LowRankPast, LowRankInfo]:
        """Equation (5). The rows B^T T, each as large as the parameters, are never formed."""
        basis, old, factors, new, dense_new = prepared
        dense = [old @ rows + added for rows, added in zip(past.dense, dense_new, strict=True)]
        gram = sum(rows @ rows.T for rows in dense)
        for f, right, z in zip(factors, past.right, new, strict=True):
            gram = gram + _gram(old, right, f, z)
        # Rounding may leave a square below zero.
        gram = jnp.where(jnp.eye(len(basis), dtype=bool), jnp.maximum(gram, 0), gram)
        residual = gram[-1, -1] if self.has_residual else jnp.zeros((), gram.dtype)
        if len(basis) > self.rank:
            left, mixing, info = reduce_optimally(key, basis, gram, self.rank)
            variance, share = info.variance, info.share
        else:  # everything is kept
            left, mixing = basis, jnp.eye(len(basis), dtype=basis.dtype)
            variance = share = jnp.zeros((), gram.dtype)
        right = tuple(
            _added(mixing @ old, rows, f, jnp.einsum("sq,qkz->skz", mixing, z))
            for f, rows, z in zip(factors, past.right, new, strict=True)
        )
        past = LowRankPast(left, right, tuple(mixing @ rows for rows in dense))
        return past, LowRankInfo(residual, variance, share)

    def _basis(self, probe_key, residual_key, past: LowRankPast, block: AgedBlock, factors) -> jax.Array:
        """The columns of B, equations (3) and (4), as (q, S)."""
        structure, dtype = self.structure, self.structure.dtype
        size = structure.state_size
        if self.basis_size == size:
            return jnp.eye(size, dtype=dtype)

        def probe(key):
            steps, keys = block.length, jax.random.split(key, len(structure.leaves))
            shapes = [(group.preact_size,) for group in structure.groups]
            shapes += [structure.leaves[leaf.leaf].shape for leaf in structure.dense]
            signs = [
                probe_signs(key, steps * math.prod(shape), dtype).reshape(steps, *shape)
                for key, shape in zip(keys, shapes, strict=False)
            ]
            groups = len(structure.groups)
            preacts = (
                jnp.linalg.norm(f, axis=-1)[:, None] * eta for f, eta in zip(factors, signs, strict=False)
            )
            return block.inject(tuple(preacts), tuple(signs[groups:]))

        probes = jax.vmap(probe)(jax.random.split(probe_key, self.probes))
        moved = jax.vmap(block.pushforward)(jnp.concatenate([past.left, probes]))
        u, _ = jnp.linalg.qr(moved.T)  # (3)
        if not self.has_residual:
            return u.T
        nu = random_signs(residual_key, size, dtype)
        return jnp.concatenate([u.T, (nu - u @ (u.T @ nu))[None]])  # (4)


def _gram(
    old: Float[Array, "q r"],
    right: Float[Array, "r F Z"],
    factors: Float[Array, "k F"],
    new: Float[Array, "q k Z"],
) -> Float[Array, "q q"]:
    """Inner products of the rows C W + sum_i f_i (x) z_i, from C, W, f and z."""
    seen = jax.lax.map(lambda matrix: factors @ matrix, right)  # f_i W_r, (R, k, Z)
    both = old @ _products(seen, new)
    weighted = jnp.einsum("ki,qiz->qkz", factors @ factors.T, new)
    return old @ _products(right, right) @ old.T + both + both.T + _products(new, weighted)


def _products(a: Float[Array, "n k Z"], b: Float[Array, "m k Z"]) -> Float[Array, "n m"]:
    """Inner products of matrices; as `_right_factors.py` says, not of both their axes as one."""
    return jnp.tensordot(a, b, ((1, 2), (1, 2)))


def _added(
    mixing: Float[Array, "s r"],
    right: Float[Array, "r F Z"],
    factors: Float[Array, "k F"],
    new: Float[Array, "s k Z"],
) -> Float[Array, "s F Z"]:
    """The matrices mixing @ W + sum_i f_i (x) z_i."""
    return jnp.tensordot(mixing, right, 1) + jax.lax.map(lambda z: factors.T @ z, new)


def _operations(sizes: CellSizes, rank: int, block: int) -> Operations:
    w, probes = sizes.weights + sizes.dense, min(rank, max(sizes.state - rank, 0))
    terms = rank + probes + 1
    return {
        "forward": 2 * w,
        "backward": (1.5 * block + 0.5) * 4 * w,
        "jacobians": 2 * (rank + 2 * probes + 2 * terms) * w,
        "read": 2 * rank * w,
        "gram": 2 * (rank + rank**2 / block) * w,
        "mix": 2 * (rank + rank**2 / block) * w,
        "decompose": (1e4 + terms**3) / block,
    }


SPEC = Spec(
    factory=low_rank,
    call="low_rank(cell, rank=R)",
    influence="two blocks exactly, R directions before",
    exact=False,
    unbiased=True,
    memory="R (S + P)",
    time="R P",
    requires=ANY_CELL,
    source="ours",
    papers=("benzing2019optimal",),
    operations=_operations,
    order=0,
    block=16,
    number=Number("rank", 8, recommended=(16, 8, 4), within_state=True),
    takes_past_dtype=True,
)
