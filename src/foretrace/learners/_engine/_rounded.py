"""Pasts stored in bfloat16: half the bytes, rounded at random, so that their mean stays what it was.

Between two steps a past is stored, within one it is computed with in float32. Of the two neighbours that a
number has among those of bfloat16, it becomes the nearer one the more often, in proportion:

    E[stored] = number,    |stored - number| <= 2^-7 |number|                               (1)

Every array draws on its own, so that the mean of a product of two, such as of a left and a right factor, is
the product of their means: what was unbiased stays unbiased. Rounding to the nearest would not do: what a
step adds would be lost where it is less than half of the last bit.
"""

from functools import reduce
from operator import add
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._checks import UserError
from foretrace._types import Info
from foretrace._xla import computed_once
from foretrace.learners._engine._past import GroupedGradient, PastRule, PreparedRule, Rows, Terms

P = TypeVar("P")


def check_past_dtype(past_dtype: Any) -> bool:
    """Whether pasts are to be rounded.

    Raises:
        ValueError: `past_dtype` is neither None nor bfloat16.
    """
    try:
        fits = past_dtype is None or jnp.dtype(past_dtype) == jnp.bfloat16
    except TypeError:
        fits = False
    if not fits:
        raise UserError(
            f"past_dtype must be jnp.bfloat16 or None; got {past_dtype!r}; leave it out for the precision "
            "of the parameters."
        )
    return past_dtype is not None


def rounded(rule: PastRule) -> PastRule:
    """The same method with a past in bfloat16."""
    return _RoundedPreparedRule(rule) if isinstance(rule, PreparedRule) else _RoundedRule(rule)


class _RoundedRule(PastRule[P]):
    """Rounds what `rule` pushes.

    Numbers that stand alone are stored as they are. A complex array (n, ..) is stored as (2 n, ..), real
    parts first.
    """

    is_random = True

    def __init__(self, rule: PastRule[P]) -> None:
        super().__init__(rule.structure)
        self.rule = rule
        self.needs_no_window, self.keeps_step_weights = rule.needs_no_window, rule.keeps_step_weights
        self._exact = jax.eval_shape(rule.empty)
        credit = jnp.zeros(self.structure.state_size, self.structure.dtype)
        # Products need their factors in memory, in float32; other reads widen a number where they use it.
        collected = jax.eval_shape(rule.collect, self._exact, credit)
        self.widens_to_read = any(map(_is_product, jax.tree.leaves(collected, is_leaf=_is_product)))

    def empty(self) -> P:
        """See `PastRule`."""
        return jax.tree.map(_stored, self.rule.empty())

    def read(self, past: P, credit: jax.Array) -> GroupedGradient:
        """See `PastRule`."""
        return self.rule.read(self._computed_with(past), credit)

    def collect(self, past: P, credit: jax.Array) -> Any:
        """See `PastRule`; matrices in the place of their factors, which would be a past in float32."""

        def matrix(part):
            if isinstance(part, Terms):
                return part.left.T @ part.right
            return jnp.tensordot(part.weights, part.matrices, 1) if isinstance(part, Rows) else part

        collected = self.rule.collect(self._computed_with(past), credit)
        return jax.tree.map(matrix, collected, is_leaf=_is_product)

    def place(self, collected: Any) -> GroupedGradient:
        """See `PastRule`."""
        return self.rule.place(collected)

    def info(self, past: P) -> Info:
        """See `PastRule`."""
        return self.rule.info(self._computed_with(past))

    def push(self, key: jax.Array, past: P, block: Any) -> tuple[P, Info]:
        """See `PastRule`."""
        key, rounding = jax.random.split(key) if self.rule.is_random else (key, key)
        new, info = self.rule.push(key, self._computed_with(past), block)
        return self._round(rounding, new), info

    def _computed_with(self, past: P) -> P:
        """A stored past in the dtypes of the rule."""

        def widen(stored, exact):
            if stored.dtype == exact.dtype:
                return stored
            if not jnp.issubdtype(exact.dtype, jnp.complexfloating):
                return stored.astype(exact.dtype)
            real, imaginary = jnp.split(stored.astype(jnp.finfo(exact.dtype).dtype), 2)
            return jax.lax.complex(real, imaginary)

        return jax.tree.map(widen, past, self._exact)

    def _round(self, key: jax.Array, past: P) -> P:
        """A past to be stored, equation (1)."""
        leaves, tree = jax.tree.flatten(past)
        shapes = [_stored_shape(leaf) for leaf in leaves]
        # Once, or XLA makes the words anew for every number.
        words = computed_once(jax.random.bits(key, (sum(map(sum, shapes)),), jnp.uint32))
        each = iter(jnp.split(words, np.cumsum([n for shape in shapes for n in shape])[:-1]))
        rounded = (
            # Once too, or every read rounds anew, from the old past, which XLA then has to copy.
            computed_once(round_by(draws([next(each) for _ in shape]), _as_real(leaf))) if shape else leaf
            for leaf, shape in zip(leaves, shapes, strict=True)
        )
        return jax.tree.unflatten(tree, rounded)


class _RoundedPreparedRule(_RoundedRule[P], PreparedRule[P]):
    """The same of a rule whose push has two parts."""

    rule: PreparedRule[P]

    def prepare(self, key: jax.Array, past: P, block: Any) -> Any:
        """See `PreparedRule`."""
        return self.rule.prepare(key, self._computed_with(past), block)

    def finish(self, key: jax.Array, past: P, prepared: Any) -> tuple[P, Info]:
        """See `PreparedRule`."""
        key, rounding = jax.random.split(key)
        new, info = self.rule.finish(key, self._computed_with(past), prepared)
        return self._round(rounding, new), info


def draws(words: list[jax.Array]) -> jax.Array:
    """Numbers from 0 to 2^16 - 1 for an array (n, m, ..), from words (n,), (m,), .. of 32 random bits.

    Each is the upper half of the sum, modulo 2^32, of one word per axis. So it is uniform, and any two are
    independent, since the words of an axis in which they differ are: means and variances are those of draws
    of its own for every number, which take longer than most pasts need for a step.
    """
    shapes = [[-1 if i == axis else 1 for i in range(len(words))] for axis in range(len(words))]
    return reduce(add, (word.reshape(shape) for word, shape in zip(words, shapes, strict=True))) >> 16


def round_by(draws: jax.Array, values: jax.Array) -> jax.Array:
    """Equation (1): values as bfloat16, towards zero if a draw (from 0 to 2^16 - 1) is small, else away.

    Exact for what bfloat16 holds, also for infinities and NaN. Above its largest number, 3.39e38, towards
    zero, as infinity is no neighbour that a mean could have. float64 is rounded to float32 first.
    """
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.uint32)
    # Numbers of one sign lie in the order of their bits, of which bfloat16 has the upper half: a draw below
    # the lower half's complement carries nothing.
    size = bits & jnp.uint32(0x7FFFFFFF)
    upper = (bits + jnp.where(size < 0x7F7F0000, draws, 0)) >> 16
    # A NaN may have its only bit in the lower half.
    upper = jnp.where(size > 0x7F800000, upper | 0x40, upper)
    return jax.lax.bitcast_convert_type(upper.astype(jnp.uint16), jnp.bfloat16)


def _is_product(part: Any) -> bool:
    return isinstance(part, Terms | Rows)


def _stored(array: jax.Array) -> jax.Array:
    """Zeros, stored."""
    return jnp.zeros(_stored_shape(array), jnp.bfloat16) if array.ndim else array


def _stored_shape(array: jax.Array) -> tuple[int, ...]:
    return (2 * len(array), *array.shape[1:]) if jnp.iscomplexobj(array) else array.shape


def _as_real(array: jax.Array) -> jax.Array:
    return jnp.concatenate([array.real, array.imag]) if jnp.iscomplexobj(array) else array
