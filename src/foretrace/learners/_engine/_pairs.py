"""Two rows of an influence matrix as the real and the imaginary part of one row of complex numbers.

A real matrix [[p, q], [r, s]] maps a pair, taken as the number m, to

    alpha m + beta conj(m),    alpha = (p + s + i (r - q)) / 2,  beta = (p - s + i (r + q)) / 2.    (1)

So one step of two rows acts on every number alone, in place. As two rows it would need a copy of all of
them: a row must not be overwritten while the other one still reads it.

Where beta is zero for all parameters, and the second column of every set starts as i or -i times the first,
as of a complex number that turns, it stays so, and the first column is enough.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._xla import at_construction, computed_once, jit_unoptimised
from foretrace.structure._sparsity import ColumnSets
from foretrace.structure._structure import Structure


def as_numbers(rows: jax.Array) -> jax.Array:
    """Rows (2, ..) as complex numbers (..)."""
    return jax.lax.complex(rows[0], rows[1])


def turned(matrix: jax.Array, numbers: jax.Array, is_turn: bool) -> jax.Array:
    """Equation (1): matrices (2, 2, G) times numbers (.., G); `is_turn` if beta is known to be zero."""
    (p, q), (r, s) = matrix

    def spread(a):
        # Small arrays in memory, or XLA makes them anew for every number. To reshape the numbers instead
        # would cost a copy of them: it then no longer sees that each is read only where it is written.
        return computed_once(a).reshape((1,) * (numbers.ndim - 1) + a.shape)

    if is_turn:
        return spread(jax.lax.complex(p, r)) * numbers
    alpha, beta = jax.lax.complex(p + s, r - q) / 2, jax.lax.complex(p - s, r + q) / 2
    return spread(alpha) * numbers + spread(beta) * jnp.conj(numbers)


def find_turn(structure: Structure, index: int, part: ColumnSets) -> int:
    """1 or -1 if the second column of every set is i or -i times the first, at all times; else 0.

    Args:
        structure: of the cell.
        index: of the group in it.
        part: its columns.
    """
    rows, columns = part.rows, part.columns
    fits = len(rows) == 2 and len(columns) == 2 and rows.min() >= 0 and columns.min() >= 0
    # In a program of coarse numbers nothing can be told to be equal.
    if not fits or len(np.unique(rows)) < rows.size or structure.rounding > 1e-4:
        return 0
    size, dtype, rng = structure.state_size, structure.dtype, np.random.default_rng(2)

    @jit_unoptimised
    def push(tangent, preact, dense):
        preacts = tuple(jnp.zeros(group.preact_size, dtype) for group in structure.groups)
        preacts = (*preacts[:index], preact, *preacts[index + 1 :])
        return structure.generic_tangent(tangent, preacts, dense)

    def numbers(tangent=None, column=None, values=None):
        """What one step makes of these values at the rows, or at one of the columns."""
        state, preact = np.zeros(size, dtype), np.zeros(structure.groups[index].preact_size, dtype)
        if tangent is not None:
            state[rows] = tangent
        if column is not None:
            preact[columns[column]] = values
        out = np.asarray(push(state, preact, dense))[rows]
        return out[0] + 1j * out[1]

    dense: Any = tuple(
        np.zeros(structure.leaves[d.leaf].shape, structure.leaves[d.leaf].dtype) for d in structure.dense
    )
    a, b = rng.uniform(0.5, 1.5, (2, rows.shape[1])).astype(dtype)
    with at_construction():
        pairs = [(1j * numbers((a, b)), numbers((-b, a)))]
        first, second = (numbers(column=i, values=a) for i in range(2))
    for sign in (1, -1):
        if all(np.allclose(x, y, rtol=1e-4, atol=1e-5) for x, y in (*pairs, (sign * 1j * first, second))):
            return sign
    return 0
