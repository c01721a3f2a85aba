"""KTP, Kronecker triple products: the influence matrix in the memory of the parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from foretrace._checks import check_positive_int
from foretrace._types import Cell, Learner
from foretrace._xla import as_numbers, key_after
from foretrace.learners._catalogue._requirements import FACTORISES
from foretrace.learners._catalogue._spec import CellSizes, Number, Operations, Spec
from foretrace.learners._engine import learner_of
from foretrace.learners._engine._block import Block
from foretrace.learners._engine._past import (
    GroupedGradient,
    PastRule,
    Terms,
    empty_dense,
    push_dense,
    read_dense,
)
from foretrace.learners._kronecker import mix, reduce_by_signs, reduce_optimally
from foretrace.structure._structure import Structure


class KTPInfo(NamedTuple):
    """What the reductions of this push did, per lane, (block, groups); zeros at steps without one.

    Attributes:
        immediate: the part of the singular mass of D that was mixed with random signs, not kept.
        merged: the same of the reduction of the 2 rank products.
    """

    immediate: Float[Array, "..."]
    merged: Float[Array, "..."]


class Triple(NamedTuple):
    """u (x) sum_r a_r b_r^T: u (F,), a (R, S), b (R, Z)."""

    u: jax.Array
    a: jax.Array
    b: jax.Array


class KTPPast(NamedTuple):
    """Per group its `Triple`; per dense leaf its exact influence (S, size)."""

    groups: tuple[Triple, ...]
    dense: tuple[jax.Array, ...]


def ktp(cell: Cell, *, rank: int, block: int = 1, past_dtype: Any = None) -> Learner:
    """KTP: the influence matrix as an unbiased random u (x) sum_r a_r b_r^T per group.

    With H the state Jacobian, f the input factor, D the preactivation Jacobian, c random signs:

        sum_r a'_r b'_r^T = an unbiased reduction of D = sum_j e_j D_j^T to `rank` products     (1)
        p1 = sqrt(|sum_r (H a_r) b_r^T| / |u|),  p2 = sqrt(|sum_r a'_r b'_r^T| / |f|)           (2)
        u <- c1 p1 u + c2 p2 f                                                                  (3)
        a, b <- the unbiased reduction of least variance, to `rank` products, of
                c1 / p1 sum_r (H a_r) b_r^T + c2 / p2 sum_r a'_r b'_r^T                         (4)

    (1) keeps the rows of D with the largest norms and mixes the others: of least variance where the rows
    are orthogonal, as they are where pre-activations act on one entry of the state each.

    Exactness: unbiased for fixed parameters.

    Cost: memory F + rank (S + Z) per lane and group; time rank S (S + Z) per step where pre-activations act
    elementwise on the state, S^2 Z otherwise, whatever the block.

    Args:
        cell: the dynamics; every weight must factorise or be small (see `foretrace.explain`).
        rank: number of products a b^T kept, R.
        block: steps that are kept exactly before they join the past, one after the other; 1 is the paper's
            algorithm.
        past_dtype: `jnp.bfloat16` stores the past in half the bytes, rounded at random.

    Returns:
        A learner; `info` is a `KTPInfo`.

    Raises:
        TypeError, ValueError: `rank` or `block` is not an int >= 1, or `past_dtype` not bfloat16. At
            `init`: the cell does not factorise.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.rnn(hidden=8, inputs=3)
        >>> learner = ft.ktp(cell, rank=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))
        >>> state.hidden.shape
        (8,)

    Source: Benzing, Gauy, Mujika, Martinsson, Steger, ICML 2019, supplement, where the form of the estimate
    and (1) are given. The two sums of (4) are merged with random signs there, in a way that is not
    published in words; (2) to (4) are ours: the rule of KF-RTRL, then that of OK. As in `ok`, a gradient is
    read before the reduction of the current step.
    """
    check_positive_int("rank", rank, "for one product as in KF-RTRL use kf_rtrl(cell)")
    check_positive_int("block", block, "1 is the paper's algorithm")

    return learner_of(cell, lambda structure: _KTPRule(structure, rank), block, past_dtype=past_dtype)


class _KTPRule(PastRule[KTPPast]):
    """Carries one `Triple` per group, step by step."""

    def __init__(self, structure: Structure, rank: int) -> None:
        FACTORISES.check(structure, "ktp")
        super().__init__(structure)
        self.rank = rank

    def empty(self) -> KTPPast:
        structure, rank = self.structure, self.rank
        shapes = [
            (g.factor_size, (rank, structure.state_size), (rank, g.preact_size)) for g in structure.groups
        ]
        groups = tuple(Triple(*(jnp.zeros(n, structure.dtype) for n in triple)) for triple in shapes)
        return KTPPast(groups, empty_dense(structure))

    def read(self, past: KTPPast, credit: jax.Array) -> GroupedGradient:
        groups = tuple(Terms(g.u[None], (g.a @ credit)[None] @ g.b) for g in past.groups)
        return GroupedGradient(groups, read_dense(self.structure, past.dense, credit))

    def push(self, key: jax.Array, past: KTPPast, block: Block) -> tuple[KTPPast, KTPInfo]:
        """Equations (1) to (4) at every step of the block."""
        structure = self.structure

        numbers, keys_of = as_numbers(jax.random.split(key, (block.length, len(structure.groups))))

        def step(past, params, residuals, jacobians, numbers):
            keys = keys_of(numbers)
            jacobian, preacts, immediate = jacobians.jacobians(params, residuals)
            forward = jax.vmap(lambda a: structure.pushforward(params, residuals, a))
            merged: list[tuple[Triple, jax.Array]] = []
            parts = zip(keys, past.groups, structure.factors(residuals), preacts, strict=True)
            for k, g, f, d in parts:  # each after those before it, as `reduce_optimally` asks
                moved = g._replace(a=forward(g.a))
                merged.append(_merged(key_after(k, merged), moved, f, d, self.rank))
            dense = push_dense(jacobian, past.dense, immediate)
            none = jnp.zeros((0, 2), structure.dtype)
            shares = jnp.stack([share for _, share in merged]) if merged else none
            return KTPPast(tuple(group for group, _ in merged), dense), shares

        past, shares = block.fold(step, past, numbers)
        return past, KTPInfo(shares[..., 0], shares[..., 1])


def _merged(key, moved: Triple, f: jax.Array, d: jax.Array, rank: int) -> tuple[Triple, jax.Array]:
    """Equations (1) to (4), and the shares of `KTPInfo`."""
    keys = jax.random.split(key, 3)
    norms = jnp.linalg.norm(d, axis=1)
    order = jnp.argsort(-norms)
    empty = max(rank - len(norms), 0)  # with fewer rows than products, some of these stay empty
    basis, first = mix(keys[0], jnp.pad(norms[order], (0, empty)), rank)  # (1)
    basis = basis[: len(norms)].T
    a = jnp.zeros((rank, len(norms)), d.dtype).at[:, order].set(basis)
    b = (basis / jnp.where(norms > 0, norms, 1)[order][None]) @ d[order]

    widths = jnp.stack([_norm(moved.a, moved.b), _norm(a, b)])
    left = jnp.stack([moved.u, f])
    u, weights, _ = reduce_by_signs(keys[1], left, widths)  # (2), (3)
    a = jnp.concatenate([weights[0] * moved.a, weights[1] * a])
    b = jnp.concatenate([moved.b, b])
    a, mixing, second = reduce_optimally(keys[2], a, b @ b.T, rank)  # (4)
    return Triple(u, a, mixing @ b), jnp.stack([first.share, second.share])


def _norm(a: jax.Array, b: jax.Array) -> jax.Array:
    """Frobenius norm of sum_r a_r b_r^T."""
    return jnp.sqrt(jnp.maximum(jnp.sum((a @ a.T) * (b @ b.T)), 0))


def _operations(sizes: CellSizes, rank: int, block: int) -> Operations:
    vectors = sizes.state * sizes.groups + sizes.area / sizes.state
    return sizes.window(block) | {
        "jacobians": 0 if sizes.is_elementwise else 4 * sizes.state * sizes.weights,
        "move": 2 * rank * sizes.weights * sizes.groups,
        "mix": 2 * rank * sizes.area + 16 * rank**2 * vectors,
        "decompose": 2e4 + 16 * rank**3,
    }


SPEC = Spec(
    factory=ktp,
    call="ktp(cell, rank=R)",
    influence="R products of three vectors, one of them shared",
    exact=False,
    unbiased=True,
    memory="F + R (S + Z)",
    time="R S Z",
    requires=FACTORISES,
    source="Benzing et al. 2019",
    papers=("benzing2019optimal",),
    operations=_operations,
    order=3,
    number=Number("rank", 8, recommended=(16,)),
    takes_past_dtype=True,
)
