"""Sums of Kronecker products and their unbiased reductions; knows no network.

A sum of q products, sum_j left_j (x) right_j with left_j in R^F, is given here by its left factors (q, F)
and by the norms or inner products of its right factors, which may be large and are never decomposed. A
reduction to r products answers with new left factors (r, F) and a mixing matrix T (r, q): the new right
factors are T @ right.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from foretrace._xla import computed_once


class OptimalInfo(NamedTuple):
    """What an optimal reduction did: the exact squared error of its draw is `variance`.

    Attributes:
        mixed: number of singular directions that were mixed; the others were kept exactly.
        variance: s1^2/k - sum of d^2 over the mixed singular values d, with s1 their sum, k their slots.
        share: the part of all singular mass that was mixed, s1 / sum of d.
    """

    mixed: Float[Array, ""]
    variance: Float[Array, ""]
    share: Float[Array, ""]


def random_signs(key: PRNGKeyArray, count: int, dtype) -> Float[Array, " count"]:
    """Independent uniform signs -1, +1."""
    # Eight to a byte: `jax.random.rademacher` spends 32 bits on each, which UORO's step time shows.
    bits = jnp.unpackbits(jax.random.bits(key, (-(-count // 8),), jnp.uint8))[:count]
    # The barrier keeps the compiler from drawing anew wherever they are used, which costs more than an SVD.
    return computed_once(2 * bits.astype(dtype) - 1)


def reduce_by_signs(
    key: PRNGKeyArray, left: Float[Array, "q F"], widths: Float[Array, " q"]
) -> tuple[Float[Array, " F"], Float[Array, " q"], Float[Array, " q"]]:
    """Reduces q products to one with random signs c_j and scalings p_j = sqrt(|right_j| / |left_j|).

    New left: sum_j c_j p_j left_j; new right: sum_j c_j right_j / p_j. Unbiased, and of least variance
    among such scalings; for q = 2 the squared error is 2 |l1||l2||r1||r2| + 2 <l1,l2><r1,r2> in the mean.

    Args:
        key: for the signs.
        left: left factors.
        widths: norms of the right factors.

    Returns:
        New left factor, weights of the right factors in the new one, and the scalings p (0 for a product
        that is zero).

    Source: Mujika, Meier, Steger, NeurIPS 2018, Algorithm 1 (q = 2).
    """
    scalings, inverses = balance(jnp.linalg.norm(left, axis=1), widths)
    signs = random_signs(key, left.shape[0], left.dtype)
    return (signs * scalings) @ left, signs * inverses, scalings


def balance(
    lengths: Float[Array, " q"], widths: Float[Array, " q"]
) -> tuple[Float[Array, " q"], Float[Array, " q"]]:
    """Scalings p = sqrt(width / length) that make the factors of every product equal in norm, and 1 / p.

    Both are 0 for a product that is zero, whose other factor would be noise for nothing.
    """
    present = (lengths > 0) & (widths > 0)
    scalings = jnp.sqrt(jnp.where(present, widths, 1) / jnp.where(present, lengths, 1))
    return jnp.where(present, scalings, 0), jnp.where(present, 1 / scalings, 0)


def reduce_optimally(
    key: PRNGKeyArray, left: Float[Array, "q F"], gram: Float[Array, "q q"], rank: int
) -> tuple[Float[Array, "{rank} F"], Float[Array, "{rank} q"], OptimalInfo]:
    """Reduces q products to `rank` < q, unbiased, with the least variance any such reduction can have.

    With Q the orthonormal and R the triangular factor of the left factors and L a Cholesky factor of
    the Gram matrix:

        C = R L = V diag(d) W^T                                    (1) singular value decomposition
        m = min{m : (rank - m) d_m <= s1 = d_m + d_m+1 + ..}       (2) the m largest are kept exactly
        B_i = sqrt(d_i) e_i (i < m), else sqrt(s1 / k) eps_i Z_i   (3) k = rank - m, eps random signs
        left' = (Q V B)^T,    right' = B^T diag(1/d) V^T R right   (4) E[B B^T] = diag(d)

    where the rows Z_i of a matrix with k orthonormal columns have squared norms k d_i / s1.

    Exactness: unbiased whatever the rounding in L and d, since only V V^T = 1 and (4) are used. Pairs of
    new factors have equal norms; the new left factors are orthogonal.

    Cost: O(q^2 (F + q)), beside the products with `right` that make the Gram matrix and mix. Each
    decomposition, and the solution that applies Q, waits for the one before: jaxlib before 0.11 hangs when
    as many of them as there are cores run at once (they split their batch among the threads that they
    block).

    Source: Benzing et al., ICML 2019, Algorithms 1 to 3 (there q = rank + 1; general q is ours).
    """
    count, size = left.shape
    depth = min(count, size)
    # A product that is zero on the right needs no place on the left. Besides, this has the decomposition
    # wait for the large products behind `gram`: beside them it would take a core from them and wait.
    left = jnp.where(jnp.diagonal(gram)[:, None] != 0, left, 0)
    packed, taus = jnp.linalg.qr(left.T, mode="raw")  # Q as reflections, below R
    triangular = jnp.triu(packed.T[:depth])
    # A product that is zero on the left has no width on the right.
    present = jnp.any(triangular != 0, axis=0)
    widths = jnp.where(present, jnp.sqrt(jnp.diagonal(gram)), 0)
    core = triangular @ (widths[:, None] * _root(gram, widths))
    v, d, wt = jnp.linalg.svd(core, full_matrices=False)  # (1)
    # Decompositions leave the sign of a direction to rounding. With the greatest entry of w positive (Q has
    # no say in it), the same key draws the same in programs that round differently.
    v = jnp.where(jnp.max(wt, axis=1) + jnp.min(wt, axis=1) < 0, -v, v)
    # Below rounding a singular value is noise: mixing it would cost sqrt(d_i d_j), dropping it nothing.
    d = jnp.where(d > count * jnp.finfo(d.dtype).eps * d[0], d, 0)
    empty = max(rank - d.size, 0)  # with fewer directions than slots, some slots stay empty
    v, d = jnp.pad(v, ((0, 0), (0, empty))), jnp.pad(d, (0, empty))
    basis, info = mix(key, d, rank)
    new_left = _reflected(packed.T[:, :depth], taus, v @ basis).T  # (4)
    inverse = jnp.where(d > 0, 1 / jnp.where(d > 0, d, 1), 0)
    mixing = (v @ (inverse[:, None] * basis)).T @ triangular
    return new_left, mixing, info


def mix(
    key: PRNGKeyArray, d: Float[Array, " n"], rank: int
) -> tuple[Float[Array, "n {rank}"], OptimalInfo]:
    """Steps (2), (3) of `reduce_optimally`: B with E[B B^T] = diag(d), d >= 0 descending, n >= rank."""
    tails = jnp.cumsum(d[::-1])[::-1]
    slots = (rank - jnp.arange(d.size)).astype(d.dtype)
    exact = jnp.argmax((slots * d <= tails) & (slots > 0))  # (2)
    mass, free = tails[exact], (rank - exact).astype(d.dtype)
    is_kept = jnp.arange(d.size) < exact
    weights = jnp.where(is_kept, 1, free * d / jnp.where(mass > 0, mass, 1))
    signs = random_signs(key, d.size, d.dtype)
    heights = jnp.where(is_kept, jnp.sqrt(d), signs * jnp.sqrt(mass / free))
    basis = heights[:, None] * frame(weights, rank)  # (3)
    squares = jnp.sum(jnp.where(is_kept, 0, d) ** 2)
    return basis, OptimalInfo(
        mixed=jnp.sum(jnp.where(is_kept, 0, d) > 0).astype(d.dtype),
        variance=jnp.maximum(mass**2 / free - squares, 0),
        share=mass / jnp.where(tails[0] > 0, tails[0], 1),
    )


def frame(weights: Float[Array, " n"], rank: int) -> Float[Array, "n {rank}"]:
    """A matrix with orthonormal columns whose row i has squared norm `weights[i]`.

    The weights lie in [0, 1] and sum to `rank`. Row by row: the fractional row carried along is rotated
    with the next unit vector, or with a zero row, so that one of the two gets the norm that is due. All
    angles follow from the running sums of the weights, at once; only the rotations come one by one.
    """
    ends = jnp.cumsum(weights)
    starts = jnp.concatenate([jnp.zeros_like(ends[:1]), ends[:-1]])
    # Unit vectors used before and after a row; what they have beyond the rows so far is carried along.
    before, after = (jnp.minimum(jnp.ceil(sums), rank) for sums in (starts, ends))
    size, fresh = before - starts, after > before
    rising = (weights - size) / jnp.where(fresh, 1 - size, 1)
    falling = 1 - weights / jnp.where(size > 0, size, jnp.inf)
    cosine2 = jnp.clip(jnp.where(fresh, rising, falling), 0, 1)
    cosine, sine = jnp.sqrt(cosine2)[:, None], jnp.sqrt(1 - cosine2)[:, None]
    units = fresh[:, None] & (before[:, None] == jnp.arange(rank, dtype=weights.dtype)[None])

    def rotate(rest, row):
        cosine, entering = row
        return cosine * rest - entering, rest

    rotations = cosine, jnp.where(units, sine, 0)
    _, rests = jax.lax.scan(rotate, jnp.zeros(rank, weights.dtype), rotations)
    rows = jnp.where(units, cosine, 0) + sine * rests
    # The sums round small weights away; a reduction is unbiased with the norms that are due.
    squares = jnp.sum(rows**2, axis=1)
    scales = jnp.sqrt(weights / jnp.where(squares > 0, squares, jnp.inf))
    return scales[:, None] * rows


def _reflected(
    packed: Float[Array, "F n"], taus: Float[Array, " n"], top: Float[Array, "n r"]
) -> Float[Array, "F r"]:
    """Q @ (top, 0 ..)^T for the n reflections Q of a decomposition.

    As matrix products, Q = 1 - v (diag(1/tau) + striu(v^T v))^-1 v^T, since LAPACK's and cuSOLVER's own
    take one lane after the other.

    Source: Joffrain, Low, Quintana-Orti, van de Geijn, Van Zee, ACM TOMS 32(2), 2006 (the UT transform).
    """
    count = taus.size
    v = jnp.tril(packed, -1) + jnp.eye(*packed.shape, dtype=packed.dtype)
    upper = jnp.eye(count, dtype=packed.dtype) + taus[:, None] * jnp.triu(v.T @ v, 1)
    weights = taus[:, None] * (v[:count].T @ top)
    moved = v @ jax.scipy.linalg.solve_triangular(upper, weights, unit_diagonal=True)
    return jnp.pad(top, ((0, packed.shape[0] - count), (0, 0))) - moved


def _root(gram: Float[Array, "q q"], widths: Float[Array, " q"]) -> Float[Array, "q q"]:
    """Lower Cholesky factor of the correlations in a Gram matrix, raised to the level of their rounding.

    Right factors that hardly differ leave correlations that rounding, of sums over all their entries, makes
    indefinite by more than that: the level rises until there is a factor. Any invertible one keeps a
    reduction unbiased, but one that knows nothing of the correlations makes it as loud as can be.
    """
    count = gram.shape[0]
    inverse = jnp.where(widths > 0, 1 / jnp.where(widths > 0, widths, 1), 0)
    correlations = gram * inverse[:, None] * inverse[None, :]
    eye = jnp.eye(count, dtype=gram.dtype)

    def factor(level):
        return level, jnp.linalg.cholesky(correlations + level * eye)

    def fails(raised):
        level, root = raised
        return (level < 1) & ~jnp.all(jnp.isfinite(root))

    least = factor(jnp.asarray(count * jnp.finfo(gram.dtype).eps, gram.dtype))
    _, root = jax.lax.while_loop(fails, lambda raised: factor(4 * raised[0]), least)
    return jnp.where(jnp.all(jnp.isfinite(root)), root, eye)
