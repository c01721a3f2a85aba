"""Wrapping a plain function as a cell, and what the built-in cells share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from foretrace._checks import UserError, UserTypeError, check_positive_int, noted
from foretrace._types import Cell, Hidden, Input, Params, whole_hidden
from foretrace._xla import at_construction, default_flags, map_sequentially
from foretrace.structure._find import at_least_float32, check_floats, check_step, first_line, shapes_of


@default_flags()
def cell(
    step: Callable[[Params, Hidden, Input], Hidden],
    *,
    init: Callable[[Any], Params],
    hidden: Any,
    inputs: Any,
    output: Callable[[Hidden], Any] = whole_hidden,
) -> Cell:
    """Wraps a plain function of `(params, hidden, x)`, written for one example, as a cell.

    Args:
        step: `(params, hidden, x) -> hidden`, pure; the new state has the shapes and dtypes of the old.
        init: `(key) -> params`, a pytree of float arrays.
        hidden: the size of a float32 vector that starts at zero, or the initial hidden state
            itself, a pytree of arrays (a `jax.ShapeDtypeStruct` stands for zeros).
        inputs: the size of a float32 vector, or an example input, a pytree likewise.
        output: `(hidden) -> vector`, the part of the hidden state that readouts and layers above read; all
            of it by default.

    Returns:
        The cell.

    Raises:
        TypeError: if a parameter or a part of the hidden state is not a float array.
        ValueError: if a size is below 1, or `step` returns another hidden state than it gets, or has a
            loop that cannot be differentiated backwards.
        Exception: what `step` or `output` raises for these shapes, with a note that says which.

    Example:
        >>> import jax, jax.numpy as jnp, foretrace as ft
        >>> def leaky(params, hidden, x):
        ...     return 0.9 * hidden + 0.1 * jnp.tanh(params["w"] @ hidden + params["v"] @ x)
        >>> def init(key):
        ...     w, v = jax.random.split(key)
        ...     return {"w": jax.random.normal(w, (8, 8)), "v": jax.random.normal(v, (8, 3))}
        >>> cell = ft.cell(leaky, init=init, hidden=8, inputs=3)
        >>> cell.step(cell.init(jax.random.key(0)), cell.initial_hidden(), jnp.ones(3)).shape
        (8,)
    """
    # Copies of all that is held, because a training loop may give away the memory of parameters and state.
    wrapped = Cell(
        lambda key: jax.tree.map(jnp.copy, init(key)),
        _example("hidden", hidden),
        step,
        _example("inputs", inputs),
        output,
    )
    params = jax.eval_shape(wrapped.init, jax.random.key(0))
    for path, leaf in jax.tree.leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise UserTypeError(
                f"every parameter must be a float array; got {leaf.dtype} at "
                f"params{jax.tree_util.keystr(path)}; make constants part of step instead."
            )
    before, x = jax.eval_shape(wrapped.initial_hidden), jax.eval_shape(wrapped.example_input)
    check_floats("hidden", before)
    check_step(step, params, before, x)

    def backwards(params, hidden, x):
        new, pullback = jax.vjp(lambda p, h: step(p, h, x), params, hidden)
        return pullback(new)

    try:
        jax.eval_shape(backwards, params, before, x)
    except ValueError as error:
        raise UserError(
            f"step must be differentiable backwards; got {first_line(error)!r}; in place of "
            "lax.while_loop use lax.scan, or lax.fori_loop with ints as bounds, and around a callback "
            "jax.custom_jvp."
        ) from error
    with noted(f"Raised by output, for a hidden state {shapes_of(before)}."):
        jax.eval_shape(output, before)
    return wrapped


def size(name: str, value: Any) -> int:
    """A cell's size as an int; raises TypeError or ValueError unless it is one >= 1."""
    remedy = "give the number of units" if name == "hidden" else "give the length of a vector"
    return check_positive_int(name, value, remedy)


def float_dtype(dtype: Any) -> jnp.dtype:
    """Returns `dtype` as a floating dtype, or raises."""
    if not jnp.issubdtype(dtype, jnp.floating):
        raise UserTypeError(f"dtype must be a float dtype; got {dtype!r}; use jnp.float32.")
    return jnp.dtype(dtype)


def dense(key: Any, inputs: int, hidden: int, gates: int, dtype: jnp.dtype) -> dict[str, Any]:
    """Glorot-uniform input weights, orthogonal recurrent weights per gate, zero bias.

    Returns:
        `input` (inputs, gates * hidden), `recurrent` (hidden, gates * hidden) and `bias`
        (gates * hidden,).
    """
    input_key, recurrent_key = jax.random.split(key)
    glorot, orthogonal = jax.nn.initializers.glorot_uniform(), jax.nn.initializers.orthogonal()

    # Drawn gate by gate: stacking must not change the scale that each gate sees.
    def draw(initializer, key, rows):
        keys = jax.random.split(key, gates)
        drawn = map_sequentially(lambda k: initializer(k, (rows, hidden), at_least_float32(dtype)), keys)
        return jnp.concatenate(list(drawn), axis=1).astype(dtype)

    return {
        "input": draw(glorot, input_key, inputs),
        "recurrent": draw(orthogonal, recurrent_key, hidden),
        "bias": jnp.zeros(gates * hidden, dtype),
    }


def affine(params: dict[str, Any], hidden: Any, x: Any) -> Any:
    """The pre-activation x @ input + hidden @ recurrent + bias."""
    return x @ params["input"] + hidden @ params["recurrent"] + params["bias"]


def _example(name: str, spec: Any) -> Callable[[], Any]:
    if isinstance(spec, int):
        number = size(name, spec)
        return lambda: jnp.zeros(number, jnp.float32)
    for leaf in jax.tree.leaves(spec):
        if not hasattr(leaf, "shape"):
            raise UserTypeError(
                f"{name} must be an int or a pytree of arrays; got a {type(leaf).__name__} in it; "
                f"wrap numbers in jnp.asarray."
            )
    # Held as a copy too: an array of NumPy may change, one of JAX may be given away by its owner.
    with at_construction():
        held = jax.tree.map(_concrete, spec)
    return lambda: jax.tree.map(jnp.copy, held)


def _concrete(leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jnp.zeros(leaf.shape, leaf.dtype)
    return jnp.array(leaf)
