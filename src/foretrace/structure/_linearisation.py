"""A step's Jacobians by their entries, from as few credits and tangents as their non-zeros allow."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._types import Params
from foretrace.structure._jacobian_rule import JacobianRule
from foretrace.structure._pattern import Entries, Pattern, by_rows, find_pattern
from foretrace.structure._sparsity import Sparsity
from foretrace.structure._structure import Structure

# `(params, residuals, rule) -> (state_jacobian, immediate_jacobian per group and dense leaf)`.
Linearise = Callable[[Params, tuple, JacobianRule], tuple[Entries, list[Entries]]]


def linearisation(structure: Structure, sparsity: Sparsity, without_weights: bool = False) -> Linearise:
    """A function that finds a step's Jacobians by their entries.

    Rows that share no column are pulled back together, as one credit; columns that share no row are pushed
    forward together, as one tangent. A matrix with too many colours both ways is found row by row.

    Args:
        structure: of the cell.
        sparsity: its non-zeros.
        without_weights: whether the state Jacobian is to be that through no weight of a group.
    """
    size, groups = structure.state_size, len(structure.groups)
    matrices = [sparsity.direct if without_weights else sparsity.state, *sparsity.immediate]
    # One credit gives rows of all matrices, so that as many as possible share the colours of their rows.
    joint, together = np.zeros((size, 0), bool), []
    rows = Pattern(joint.T, np.zeros(size, int))
    for i in range(int(without_weights), len(matrices)):
        more = np.concatenate([joint, matrices[i]], axis=1)
        if (pattern := find_pattern(more.T)) is not None:
            joint, rows, together = more, pattern, [*together, i]
    apart = {i: find_pattern(m) for i, m in enumerate(matrices) if i not in together}
    columns = {i: pattern for i, pattern in apart.items() if pattern is not None}
    whole = [i for i in apart if i not in columns]

    # The matrices are numbered: the state Jacobian 0, then the groups' from 1, then the dense leaves'.
    def forward(params, residuals, i, seed):
        """The product of matrix i with a tangent."""
        if i == 0:
            return structure.pushforward(params, residuals, seed, without_weights=without_weights)
        if i <= groups:
            preacts = [seed if i == g + 1 else None for g in range(groups)]
            return structure.pushforward(params, residuals, None, preacts)
        leaves = [structure.leaves[leaf.leaf] for leaf in structure.dense]
        pairs = enumerate(leaves, start=groups + 1)
        dense = [seed.reshape(a.shape).astype(a.dtype) if i == n else None for n, a in pairs]
        return structure.pushforward(params, residuals, None, None, dense)

    def linearise(params, residuals, rule):
        out: dict[int, Entries] = {}
        if together:
            pullback = jax.vmap(structure.pullback, in_axes=(None, None, 0))
            seeds = jnp.asarray(rows.seeds, structure.dtype)
            state, preacts, dense = pullback(params, residuals, seeds)
            values = [state, *preacts, *(leaf.reshape(len(state), -1) for leaf in dense)]
            out |= {i: by_rows(values[i], matrices[i], rows.colour) for i in together}
        for i, pattern in columns.items():
            seeds = jnp.asarray(pattern.seeds, structure.dtype)
            values = jax.vmap(lambda seed, i=i: forward(params, residuals, i, seed))(seeds)
            out[i] = Entries(pattern, values)
        if whole:  # what has too many colours is made as a matrix, once for all of it
            state, preacts, dense = rule.jacobians(params, residuals)
            values = [state, *preacts, *dense]
            if without_weights:
                eye = jnp.eye(size, dtype=structure.dtype)
                values[0] = jax.vmap(lambda seed: forward(params, residuals, 0, seed), out_axes=1)(eye)
            out |= {i: by_rows(values[i], matrices[i], np.arange(size)) for i in whole}
        state, *immediate = (out[i] for i in range(len(matrices)))
        return state, immediate

    return linearise
