"""Everything asked of the compiler, in one place: options, and an order of events that it sees.

An option is asked for only where this XLA knows it. A missing one is silent: programs are the same, and
take longer to compile.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, reduce
from operator import or_
from typing import Any

import jax
import jax.numpy as jnp


def jit_unoptimised(function: Callable) -> Callable:
    """`jax.jit` for a program that runs once: optimising its code takes far longer than running it."""
    return _jit(function, 0)


def jit_fast_compile(function: Callable, **options: Any) -> Callable:
    """`jax.jit` for a program that runs for seconds: compiled in a third of the time, and hardly slower."""
    return _jit(function, 1, **options)


def _jit(function: Callable, level: int, **options: Any) -> Callable:
    wanted = {"xla_backend_optimization_level": level, "xla_cpu_use_fusion_emitters": False}
    supported = {name: value for name, value in wanted.items() if knows(name, value)}
    return jax.jit(function, compiler_options=supported, **options)


@cache
def knows(option: str, value: Any) -> bool:
    """Whether this XLA has a compiler option.

    The older code generator for the CPU (`xla_cpu_use_fusion_emitters=False`) compiles twice as fast.
    jaxlib 0.10 has it; for 0.12 the option is an error, and the same name in XLA_FLAGS ends the process.
    """
    try:
        jax.jit(lambda: 0, compiler_options={option: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


@contextmanager
def default_flags() -> Iterator[None]:
    """Traces and runs programs as JAX does by default, whatever flags a user has set.

    What is found of a cell must not depend on these: a step is tried at points where it is not finite, and
    twice with the same key, and without `jit` a loop is another program.
    """
    with (
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.debug_key_reuse(False),
        jax.disable_jit(False),
    ):
        yield


@contextmanager
def at_construction() -> Iterator[None]:
    """Runs programs of constants here and now, not in a caller's trace, and with `default_flags`."""
    with jax.ensure_compile_time_eval(), default_flags():
        yield


# Whether what is traced will be divided over devices: a property of the trace, and not of the process.
_SPREAD: ContextVar[bool] = ContextVar("spread", default=False)


@contextmanager
def spread() -> Iterator[None]:
    """Traces a program for arrays that are divided over devices; see `is_spread`."""
    token = _SPREAD.set(True)
    try:
        yield
    finally:
        _SPREAD.reset(token)


def is_spread() -> bool:
    """Whether lanes may lie on different devices: one after the other, each would be sent to all."""
    return _SPREAD.get()


def computed_once(array: jax.Array) -> jax.Array:
    """The same array, which XLA writes to memory instead of computing it anew wherever it is read."""
    return jax.lax.optimization_barrier(array)


def false_after(tree: Any) -> jax.Array:
    """A `False` that XLA can compute only after every array of `tree`.

    It orders a read before the write in place that follows: where XLA sees no order it copies the buffer.
    An `optimization_barrier` does not work for this, since XLA removes it before it assigns buffers.
    """
    firsts = (jnp.real(leaf).ravel()[0] for leaf in jax.tree.leaves(tree) if leaf.size)
    return reduce(or_, (first < -jnp.inf for first in firsts), jnp.zeros((), bool))


def key_after(key: Any, tree: Any) -> Any:
    """The same key, which XLA can use only after every array of `tree`."""
    numbers, key_of = as_numbers(key)
    return key_of(jnp.where(false_after(tree), 0, numbers))


def in_one_kernel(function: Callable) -> Callable:
    """The same `(state, *inputs) -> (state, output)`, for a caller that waits for every single step.

    It runs in a loop of one turn: XLA for CPUs (since jaxlib 0.12) compiles a loop over small arrays to one
    native function. Outside of loops each of a hundred operations is handed from thread to thread.
    """

    def step(state, *inputs):
        if jax.default_backend() != "cpu":
            return function(state, *inputs)
        state, with_keys = as_numbers(state)

        def call(state, *inputs):
            state, output = function(with_keys(state), *inputs)
            return as_numbers(state)[0], output

        outputs = jax.eval_shape(call, state, *inputs)[1]
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), outputs)
        # A loop that XLA knows to have one turn is none.
        turns = jax.lax.optimization_barrier(jnp.ones((), int))

        def turn(carry):
            # Together with the number, so that XLA takes nothing out of the loop.
            number, state, arguments = jax.lax.optimization_barrier((carry[0], carry[1], inputs))
            return number + 1, *call(state, *arguments)

        start = jnp.zeros((), int), state, nothing
        _, state, output = jax.lax.while_loop(lambda carry: carry[0] < turns, turn, start)
        return with_keys(state), output

    return step


def as_numbers(tree: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The same tree with its keys as numbers, and the function that makes keys of them again.

    JAX's checker of keys takes those that a loop goes through for used.
    """
    kinds = jax.tree.map(lambda leaf: jax.random.key_impl(leaf) if is_key(leaf) else "", tree)
    numbers = jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree)

    def with_keys(numbers):
        return jax.tree.map(
            lambda kind, leaf: jax.random.wrap_key_data(leaf, impl=kind) if kind else leaf, kinds, numbers
        )

    return numbers, with_keys


def is_key(leaf: Any) -> bool:
    """Whether an array holds keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def with_new_keys(tree: Any) -> Any:
    """The same tree with keys that count as not used yet: for what may be run again, or was a trial."""

    def renew(leaf):
        return jax.random.clone(leaf) if is_key(leaf) else leaf

    return jax.tree.map(renew, tree)


def map_sequentially(draw: Callable[[Any], Any], keys: Any) -> Any:
    """`jax.vmap(draw)(keys)` in a loop, so that decompositions do not run side by side.

    jaxlib before 0.11 hangs when as many of them as there are cores run at the same time: each splits its
    batch among the threads that the others block.
    """
    numbers, key_of = as_numbers(keys)
    return jax.lax.map(lambda a: draw(key_of(a)), numbers)
