"""OK, the optimal Kronecker-sum approximation of real-time recurrent learning."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from foretrace._checks import check_positive_int
from foretrace._types import Cell, Learner
from foretrace.learners._catalogue._requirements import FACTORISES
from foretrace.learners._catalogue._spec import CellSizes, Number, Operations, Spec
from foretrace.learners._engine import learner_of
from foretrace.learners._engine._kronecker_sum import (
    Factors,
    KroneckerSumRule,
    NewTerms,
    keys_for,
    new_products,
)
from foretrace.learners._engine._right_factors import RightFactors, inner, mixed
from foretrace.learners._kronecker import reduce_optimally
from foretrace.structure._structure import Structure


class OKInfo(NamedTuple):
    """What the reduction at this step did, per lane and group; zeros at steps without one.

    Attributes:
        mixed: number of singular directions mixed with random signs; the others were kept exactly.
        variance: squared error of this reduction's draw, the same for every draw: s1^2/k - sum d^2.
        share: the part of the singular mass that was mixed.
    """

    mixed: Float[Array, "..."]
    variance: Float[Array, "..."]
    share: Float[Array, "..."]


def ok(cell: Cell, *, rank: int, block: int = 1, age: int = 0, past_dtype: Any = None) -> Learner:
    """OK: the influence matrix as an unbiased sum of `rank` Kronecker products, of least variance.

    Per group, with f_i the input factors and D_i the preactivation Jacobians of a block's k steps, and Q_i
    the product of the state Jacobians after step i:

        influence = sum_r u_r (x) Q_0 A_r + sum_i f_i (x) Q_i D_i                  (1) rank + k products
        u, A <- the unbiased reduction of (1) to `rank` products, of least variance         (2)

    Exactness: unbiased for fixed parameters; exact while at most `rank` steps lie in the past. Every draw
    of one reduction has the squared error `info.variance`.

    Cost: memory rank (F + S Z) per lane and group; time per step (S^3 + rank S^2 Z / block) and the mixing,
    (rank + block) rank S Z / block. An age of 1 adds S^3, and a block to the way back and to the window.

    Args:
        cell: the dynamics; every weight must factorise or be small (see `foretrace.explain`).
        rank: number of Kronecker products kept, R.
        block: steps per reduction; 1 is the papers' algorithm, more is cheaper and less noisy.
        age: 1 keeps steps exactly for a block more before they join the past; most of the noise goes.
        past_dtype: `jnp.bfloat16` stores the past in half the bytes, rounded at random.

    Returns:
        A learner; `info` is an `OKInfo`.

    Raises:
        TypeError, ValueError: `rank` or `block` is not an int >= 1, `age` not 0 or 1, or `past_dtype` not
            bfloat16. At `init`: the cell does not factorise.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.rnn(hidden=8, inputs=3)
        >>> learner = ft.ok(cell, rank=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))
        >>> state.hidden.shape
        (8,)

    Source: Benzing, Gauy, Mujika, Martinsson, Steger, ICML 2019, Algorithms 1 to 3, with block = 1. The
    paper reads the gradient after the reduction that includes the current step, here it is read before: the
    same past, the same mean, less noise. Blocks longer than 1, and the age, are ours.
    """
    check_positive_int("rank", rank, "for the exact influence matrix use rtrl(cell)")
    check_positive_int("block", block, "1 is the papers' algorithm")

    def rule(structure: Structure) -> _OKRule:
        return _OKRule(structure, rank)

    return learner_of(cell, rule, block, age=age, past_dtype=past_dtype)


class _OKRule(KroneckerSumRule):
    """Reduces with least variance."""

    def __init__(self, structure: Structure, rank: int) -> None:
        FACTORISES.check(structure, "ok")
        super().__init__(structure, rank)

    def reduce(
        self, key: jax.Array, old: list[Factors], new: list[NewTerms]
    ) -> tuple[list[Factors], OKInfo]:
        """Equation (2)."""
        if not old:
            return [], OKInfo(*(jnp.zeros(0, self.structure.dtype) for _ in OKInfo._fields))
        grams = jnp.stack([_gram(a.right, b.right) for a, b in zip(old, new, strict=True)])
        # All groups at once: the decompositions of one at a time would wait for each other.
        width = max(group.left.shape[1] for group in old)
        lefts = jnp.stack([_padded(a.left, b.left, width) for a, b in zip(old, new, strict=True)])
        reduce = jax.vmap(partial(reduce_optimally, rank=self.rank))
        lefts, mixings, info = reduce(keys_for(key, old), lefts, grams)
        factors = [
            Factors(
                left[:, : a.left.shape[1]],
                b.right.added(mixed(a.right, mixing[:, : self.rank]), mixing[:, self.rank :]),
            )
            for a, b, left, mixing in zip(old, new, lefts, mixings, strict=True)
        ]
        return factors, OKInfo(*info)


def _gram(old: Float[Array, "S Z q"], new: RightFactors) -> Float[Array, "m m"]:
    """Inner products of all right factors."""
    across = new.across(old)
    return jnp.block([[inner(old, old), across], [across.T, new.gram()]])


def _padded(old: Float[Array, "q F"], new: Float[Array, "k F"], width: int) -> Float[Array, "q+k {width}"]:
    """All left factors of a group, with zeros up to the longest of any group."""
    return jnp.pad(jnp.concatenate([old, new]), ((0, 0), (0, width - old.shape[1])))


def _operations(sizes: CellSizes, rank: int, block: int) -> Operations:
    joint = rank + new_products(sizes, block)
    return sizes.window(block) | {
        "jacobians": sizes.jacobians(block),
        "move": 2 * sizes.state * (rank * sizes.area + sizes.state * sizes.dense) / block,
        "read": 2 * rank * sizes.area,
        "gram": 2 * joint**2 * sizes.area / block,
        "mix": 2 * rank * joint * sizes.area / block,
        "decompose": (1e4 + (rank + block) ** 3) / block,
    }


SPEC = Spec(
    factory=ok,
    call="ok(cell, rank=R)",
    influence="R Kronecker products, least variance",
    exact=False,
    unbiased=True,
    memory="R (F + S Z)",
    time="R S^2 Z",
    requires=FACTORISES,
    source="Benzing et al. 2019",
    papers=("benzing2019optimal",),
    operations=_operations,
    order=1,
    number=Number("rank", 8, recommended=(16, 8, 2)),
    takes_age=True,
    takes_past_dtype=True,
)
