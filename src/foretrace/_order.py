"""An order of events that the compiler sees."""

from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import Any

import jax
import jax.numpy as jnp


def never(tree: Any) -> jax.Array:
    """False, but not known before every array of a tree is.

    Where XLA sees no order between reading a buffer and writing it anew, it copies; it drops an
    `optimization_barrier` before it looks.
    """
    firsts = (jnp.real(leaf).ravel()[0] for leaf in jax.tree.leaves(tree) if leaf.size)
    return reduce(or_, (first < -jnp.inf for first in firsts), jnp.zeros((), bool))


def one_by_one(draw: Callable[[Any], Any], keys: Any) -> Any:
    """`jax.vmap(draw)(keys)` in a loop: so that decompositions do not run side by side.

    jaxlib before 0.11 hangs when as many of them as there are cores run at once: each splits its batch
    among the threads that they block.
    """
    # As numbers, since the checker of keys takes those that a scan goes through for used.
    kind = jax.random.key_impl(keys)
    numbers = jax.random.key_data(keys)
    return jax.lax.map(lambda a: draw(jax.random.wrap_key_data(a, impl=kind)), numbers)


def later(key: Any, tree: Any) -> Any:
    """The key, but not known before every array of a tree is."""
    numbers = jnp.where(never(tree), 0, jax.random.key_data(key))
    return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(key))
