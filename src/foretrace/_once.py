"""Programs that run once, compiled in a fraction of the time."""

from collections.abc import Callable

import jax


def once(function: Callable) -> Callable:
    """`jax.jit` for what runs once, where to optimise the code takes far longer than to run it."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})
