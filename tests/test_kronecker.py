"""Reductions of Kronecker sums: unbiased and of least variance, over every sign vector."""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from foretrace.learners._kronecker import frame, mix, random_signs, reduce_by_signs, reduce_optimally
from oracles import all_signs, signs_from

SIZES = [(2, 1), (3, 2), (9, 8), (12, 4), (20, 8), (5, 1), (6, 3)]
ENUMERABLE = [size for size in SIZES if size[0] <= 12]


def factors(count, rows=25, columns=30, seed=0, decay=0.7):
    """Random left (count, rows) and right (count, columns) factors of falling size."""
    rng = np.random.default_rng(seed)
    sizes = decay ** np.arange(count)[:, None]
    return rng.normal(size=(count, rows)), rng.normal(size=(count, columns)) * sizes


@partial(jax.jit, static_argnames="rank")
@partial(jax.vmap, in_axes=(0, 0, None, None))
def reductions(left, right, rank, signs):
    """Optimal reductions under each sign vector, or with rank None those by random signs."""

    def one(signs):
        key = jax.random.key(0)
        with signs_from(lambda count: signs[:count]):
            if rank is None:
                widths = jnp.linalg.norm(right, axis=1)
                new, mixing, info = reduce_by_signs(key, left, widths)
                new, mixing = new[None], mixing[None]
            else:
                new, mixing, info = reduce_optimally(key, left, right @ right.T, rank)
        return new.T @ (mixing @ right), new, mixing @ right, info

    return jax.vmap(one)(signs)


class Draws(NamedTuple):
    """Cases x sign vectors: reduced sums, new factors and info, beside the exact sums."""

    exact: np.ndarray
    sums: np.ndarray
    left: np.ndarray
    right: np.ndarray
    info: object

    @property
    def errors(self):
        return np.sum((self.sums - self.exact[:, None]) ** 2, axis=(2, 3))


def draws(pairs, rank, signs=None):
    left, right = (np.stack(side) for side in zip(*pairs, strict=True))
    signs = all_signs(left.shape[1]) if signs is None else signs
    made = reductions(jnp.asarray(left), jnp.asarray(right), rank, signs.astype(left.dtype))
    exact = left.astype(float).mT @ right.astype(float)
    sums, *rest = jax.tree.map(np.asarray, made)
    return Draws(exact, sums.astype(float), *rest)


@cache
def at_size(count, rank):
    """Four random sums that fall off at different rates; every sign vector, or 256 where too many."""
    pairs = [factors(count, seed=i, decay=decay) for i, decay in enumerate((1, 0.8, 0.6, 0.4))]
    some = np.random.default_rng(0).choice([-1.0, 1.0], size=(256, count))
    return draws(pairs, rank, None if count <= 12 else some)


def papers_rule(values, rank):
    """(variance, number mixed) by papers.md 2.1: d ascending, the longest prefix that qualifies.

    General q: a prefix of L values shares k = L - (q - rank) slots, and qualifies if k d_s <= s1.
    """
    d = np.sort(values)
    for mixed in range(len(d), 0, -1):
        slots = mixed - (len(d) - rank)
        total = d[:mixed].sum()
        if slots >= 1 and slots * d[mixed - 1] <= total:
            return total**2 / slots - np.sum(d[:mixed] ** 2), mixed
    raise ValueError("no prefix qualifies")


def singular_values(draws, count):
    return np.linalg.svd(draws.exact, compute_uv=False)[:, :count]


@pytest.mark.parametrize(("count", "rank"), ENUMERABLE)
def test_mean_over_all_signs_is_the_sum(x64, count, rank):
    made = at_size(count, rank)
    np.testing.assert_allclose(np.mean(made.sums, axis=1), made.exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("count", "rank"), SIZES)
def test_every_draw_has_the_error_that_info_says(x64, count, rank):
    made = at_size(count, rank)
    np.testing.assert_allclose(made.errors, made.info.variance, rtol=1e-9)


@pytest.mark.parametrize(("count", "rank"), SIZES)
def test_variance_and_number_mixed_follow_the_papers_rule(x64, count, rank):
    made = at_size(count, rank)
    for i, values in enumerate(singular_values(made, count)):
        variance, mixed = papers_rule(values, rank)
        share = np.sort(values)[:mixed].sum() / values.sum()
        np.testing.assert_allclose(made.info.variance[i], variance, rtol=1e-9)
        assert set(made.info.mixed[i]) == {mixed}
        np.testing.assert_allclose(made.info.share[i], share, rtol=1e-9)


@pytest.mark.parametrize(("count", "rank"), SIZES)
def test_new_left_factors_are_orthogonal_and_pairs_have_equal_norms(x64, count, rank):
    made = at_size(count, rank)
    gram = made.left @ made.left.mT
    np.testing.assert_allclose(gram, gram * np.eye(rank), atol=1e-11)
    norms = (np.linalg.norm(factor, axis=-1) for factor in (made.left, made.right))
    np.testing.assert_allclose(*norms, rtol=1e-9)


@pytest.mark.parametrize("count", [2, 5])
def test_optimal_at_rank_one_is_never_above_random_signs(x64, count):
    pairs = [factors(count, rows=3, columns=3, seed=seed, decay=0.9) for seed in range(40)]
    variance = draws(pairs, 1, jnp.ones((1, count))).info.variance[:, 0]
    random = draws(pairs, None)
    assert np.all(variance <= np.mean(random.errors, axis=1) * (1 + 1e-12))


def test_no_more_directions_than_rank_is_exact(x64):
    rng = np.random.default_rng(0)

    def of_rank(left, right):
        shapes = [(5, left), (left, 9), (5, right), (right, 9)]
        a, b, c, d = (rng.normal(size=shape) for shape in shapes)
        return a @ b, c @ d

    made = draws([of_rank(*ranks) for ranks in [(2, 5), (5, 2), (1, 1), (3, 5), (5, 3)]], 3)
    # A direction that is not there is lost in a Gram matrix to the root of rounding only.
    assert np.all(made.errors <= 1e-6 * np.sum(made.exact**2, axis=(1, 2))[:, None])


@pytest.mark.parametrize(("rows", "columns"), [(2, 9), (9, 2), (1, 1)])
def test_fewer_dimensions_than_rank_is_exact(x64, rows, columns):
    made = draws([factors(5, rows, columns)], 3)
    np.testing.assert_allclose(made.sums, np.broadcast_to(made.exact[:, None], made.sums.shape))
    assert np.isfinite(made.right).all()


EXTREMES = ["zero left", "zero right", "all zero", "parallel left", "parallel right", "small"]
EXTREMES += ["nearly parallel", "cancelling", "large left", "large right", "large and small"]


@cache
def extremes():
    """Five products in float32, with something in them that breaks naive formulas."""
    big, small = np.float32(1e12), np.float32(1e-12)
    cases = {}
    for name in EXTREMES:
        cases[name] = tuple(side.astype(np.float32) for side in factors(5, 6, 7, decay=1))
    cases["zero left"][0][1] = 0
    cases["zero right"][1][2] = 0
    cases["all zero"][0][:] = cases["all zero"][1][:] = 0
    cases["parallel left"][0][1:] = np.float32([[2], [-3], [0.1], [1]]) * cases["parallel left"][0][0]
    cases["parallel right"][1][1:4] = np.float32([[2], [-3], [0.1]]) * cases["parallel right"][1][0]
    cases["nearly parallel"][1][1] = np.float32(1 + 1e-6) * cases["nearly parallel"][1][0]
    cases["cancelling"][0][1] = cases["cancelling"][0][0]
    cases["cancelling"][1][1] = -cases["cancelling"][1][0]
    cases["large left"][0][0] *= big
    cases["large right"][1][0] *= big
    cases["large and small"][0][0] *= big
    cases["large and small"][1][0] *= small
    cases["small"][0][:2] *= small
    cases["small"][1][3] *= small
    return cases


@pytest.mark.parametrize("rank", [None, 1, 2, 4])
def test_float32_is_unbiased_and_finite_with_extreme_factors(rank):
    cases = extremes()
    made = draws(list(cases.values()), rank)
    for i, name in enumerate(cases):
        largest = max(np.abs(made.sums[i]).max(), 1e-30)
        bias = np.abs(np.mean(made.sums[i], axis=0) - made.exact[i]).max()
        assert bias <= 1e-5 * largest, name
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(made[1:]))


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_float32_errors_are_the_least_possible_with_extreme_factors(rank):
    cases = extremes()
    made = draws(list(cases.values()), rank)
    # Parallel factors are told apart in a Gram matrix to the root of rounding only.
    resolution = dict.fromkeys(cases, 1e-09)
    resolution |= {"parallel right": 1e-3, "nearly parallel": 1e-3, "parallel left": 1e-6}
    squares = np.sum(made.exact**2, axis=(1, 2))
    for i, (name, values) in enumerate(zip(cases, singular_values(made, 5), strict=True)):
        least, _ = papers_rule(values, rank)
        for error in made.errors[i], made.info.variance[i]:
            atol = resolution[name] * squares[i]
            np.testing.assert_allclose(error, least, rtol=1e-3, atol=atol, err_msg=name)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_random_signs_are_unbiased(x64, count):
    made = draws([factors(count, seed=seed) for seed in range(3)], None)
    np.testing.assert_allclose(np.mean(made.sums, axis=1), made.exact, rtol=0, atol=1e-12)


def test_random_signs_have_the_variance_of_the_formula(x64):
    pairs = [factors(2, rows=3, columns=3, seed=seed) for seed in range(20)]
    for (left, right), errors in zip(pairs, draws(pairs, None).errors, strict=True):
        lengths, widths = (np.linalg.norm(side, axis=1) for side in (left, right))
        formula = 2 * lengths.prod() * widths.prod()
        formula += 2 * (left[0] @ left[1]) * (right[0] @ right[1])
        np.testing.assert_allclose(np.mean(errors), formula, rtol=1e-10)


def test_a_product_that_is_zero_adds_no_noise(x64):
    left, right = factors(2)
    gone = left * [[1], [0]], right * [[1], [0]]
    made = draws([(gone[0], right), (left, gone[1])], None)
    np.testing.assert_allclose(made.errors, 0, atol=1e-20)
    assert np.all(made.info[:, :, 1] == 0)


def test_frame_has_orthonormal_columns_and_the_demanded_row_norms(x64):
    rng = np.random.default_rng(0)
    for count, rank in [(2, 1), (9, 8), (12, 4), (20, 8)]:
        weights = np.zeros((100, count))
        for row in weights:  # as in a reduction: the largest kept, the others share what is left
            kept = rng.integers(0, rank)
            row[:kept] = 1
            parts = rng.uniform(size=count - kept) ** 2
            share = (rank - kept) / (count - kept)
            low = share * parts / parts.max()  # at most `share` each, so that the gap can be filled
            row[kept:] = low + (1 - low) * (rank - kept - low.sum()) / (1 - low).sum()
        made = jax.jit(jax.vmap(lambda w, rank=rank: frame(w, rank)))(jnp.asarray(weights))
        identity = np.broadcast_to(np.eye(rank), (100, rank, rank))
        np.testing.assert_allclose(made.mT @ made, identity, atol=1e-12)
        np.testing.assert_allclose(np.sum(made**2, axis=2), weights, atol=1e-12)


@pytest.mark.parametrize("weights", [[1, 1, 0, 0], [1, 0.5, 0.5, 0], [0.5] * 4, [1, 1 / 3, 1 / 3, 1 / 3]])
def test_frame_survives_whole_and_equal_weights_in_float32(weights):
    made = np.asarray(frame(jnp.asarray(weights, jnp.float32), 2))
    np.testing.assert_allclose(made.T @ made, np.eye(2), atol=1e-6)
    np.testing.assert_allclose(np.sum(made**2, axis=1), weights, atol=1e-6)


def test_what_is_mixed_keeps_its_mean_in_float32_however_small():
    rng = np.random.default_rng(0)
    d = np.sort(np.exp(2.5 * rng.normal(size=(1000, 24))))[:, ::-1].astype(np.float32)
    basis, _ = jax.jit(jax.vmap(lambda d: mix(jax.random.key(0), d, 8)))(jnp.asarray(d))
    # Signs make the rest of B B^T vanish in the mean; the diagonal has to be d whatever they are.
    np.testing.assert_allclose(np.sum(np.asarray(basis, float) ** 2, axis=2), d, rtol=1e-5)


def test_signs_are_fair_and_independent():
    keys = jax.random.split(jax.random.key(0), 4000)
    signs = np.asarray(jax.vmap(lambda key: random_signs(key, 3, jnp.float32))(keys))
    assert set(np.unique(signs)) == {-1, 1}
    np.testing.assert_allclose(signs.T @ signs / len(signs), np.eye(3), atol=0.1)
    np.testing.assert_allclose(signs.mean(axis=0), 0, atol=0.1)


@pytest.mark.parametrize("size", [1.5, 1.0, 1e-3])
def test_a_gram_matrix_that_is_none_still_gives_finite_factors_with_the_right_mean(size):
    rng = np.random.default_rng(0)
    upper = np.triu(size * np.sign(rng.normal(size=(24, 24))), 1)
    gram = jnp.asarray(upper + upper.T + np.eye(24), jnp.float32)
    left = jnp.asarray(rng.normal(size=(24, 30)), jnp.float32)

    def mean_over(signs):
        with signs_from(lambda count: signs[:count]):
            new, mixing, info = reduce_optimally(jax.random.key(0), left, gram, 8)
        return new.T @ mixing, info

    # Signs enter in pairs only: the mean over the rows of a Hadamard matrix is that over all of them.
    means, info = jax.jit(jax.vmap(mean_over))(jnp.asarray(scipy.linalg.hadamard(32), jnp.float32))
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves((means, info)))
    np.testing.assert_allclose(jnp.mean(means, axis=0), left.T, atol=2e-3)


@pytest.mark.parametrize("scale", [1e-3, 1e-5, 0.0])
def test_right_factors_that_hardly_differ_are_reduced_with_little_noise_in_float32(scale):
    def one(key):
        keys = jax.random.split(key, 4)
        # Rounding of such long sums leaves a Gram matrix without a Cholesky factor in every third case.
        mixing, few = jax.random.normal(keys[0], (16, 3)), jax.random.normal(keys[1], (3, 4000))
        right = mixing @ few + scale * jax.random.normal(keys[2], (16, 4000))
        left, new, _ = reduce_optimally(keys[3], jnp.eye(16), right @ right.T, 8)
        return jnp.sum((left.T @ (new @ right) - right) ** 2) / jnp.sum(right**2)

    errors = jax.vmap(one)(jax.random.split(jax.random.key(0), 64))
    assert float(errors.max()) < 1e-5
