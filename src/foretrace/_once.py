"""Programs that run once or for seconds, compiled in a part of the time."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax


def once(function: Callable) -> Callable:
    """`jax.jit` for what runs once, where to optimise the code takes far longer than to run it."""
    return _compiled(function, 0)


def briefly(function: Callable, **options: Any) -> Callable:
    """`jax.jit` for what runs for seconds: compiled in a third of the time, and hardly slower."""
    return _compiled(function, 1, **options)


def _compiled(function: Callable, level: int, **options: Any) -> Callable:
    given = {"xla_backend_optimization_level": level, **_older()}
    return jax.jit(function, compiler_options=given, **options)


@cache
def _older() -> dict[str, bool]:
    """The option for the older code generator of XLA for the CPU, twice as fast, while there is one."""
    option = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda: 0, compiler_options=option).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return option
