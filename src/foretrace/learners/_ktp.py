"""KTP, Kronecker triple products: the influence matrix in the memory of the parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from foretrace._checks import check_count
from foretrace._types import Cell, Learner
from foretrace._xla import key_after
from foretrace.learners._engine._factored import check_factorises
from foretrace.learners._engine._past import Past, Sensitivity, Terms, empty_dense, read_dense
from foretrace.learners._engine._window import engine
from foretrace.learners._kronecker import mix, reduce_by_signs, reduce_optimally


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


def ktp(cell: Cell, *, rank: int, block: int = 1) -> Learner:
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

    Returns:
        A learner; `info` is a `KTPInfo`.

    Raises:
        TypeError, ValueError: `rank` or `block` is not an int >= 1. At `init`: the cell does not factorise.

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
    check_count("rank", rank, "for one product as in KF-RTRL use kf_rtrl(cell)")
    check_count("block", block, "1 is the paper's algorithm")

    def past(structure):
        check_factorises(structure, "ktp")
        size, dtype = structure.state_size, structure.dtype

        def empty():
            groups = (
                Triple(*(jnp.zeros(n, dtype) for n in (g.factor_size, (rank, size), (rank, g.preact_size))))
                for g in structure.groups
            )
            return KTPPast(tuple(groups), empty_dense(structure))

        def read(past, credit):
            groups = tuple(Terms(g.u[None], (g.a @ credit)[None] @ g.b) for g in past.groups)
            return Sensitivity(groups, read_dense(structure, past.dense, credit))

        def push(key, past, block):
            def step(past, params, residuals, transport, data):
                keys = jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))
                jacobian, preacts, immediate = transport.jacobians(params, residuals)
                forward = jax.vmap(lambda a: structure.pushforward(params, residuals, a))
                found = []
                parts = zip(keys, past.groups, structure.factors(residuals), preacts, strict=True)
                for k, g, f, d in parts:  # each after those before it, as `reduce_optimally` asks
                    found.append(_merged(key_after(k, found), g._replace(a=forward(g.a)), f, d, rank))
                dense = tuple(jacobian @ a + b for a, b in zip(past.dense, immediate, strict=True))
                none = jnp.zeros((0, 2), dtype)
                shares = jnp.stack([share for _, share in found]) if found else none
                return KTPPast(tuple(group for group, _ in found), dense), shares

            keys = jax.random.split(key, (block.length, len(structure.groups)))
            # As numbers, since the checker of keys takes those that a scan goes through for used.
            past, shares = block.fold(step, past, jax.random.key_data(keys))
            return past, KTPInfo(shares[..., 0], shares[..., 1])

        return Past(empty, read, push)

    return engine(cell, past, block)


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
