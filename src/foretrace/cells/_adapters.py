"""Cells of Equinox and Flax NNX as they are: a module becomes a `Cell`, its arrays the parameters."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp

from foretrace._checks import UserError, UserTypeError
from foretrace._types import Cell, Params
from foretrace.cells import cell
from foretrace.cells._cell import size


def from_equinox(module: Any, *, hidden: Any = None, inputs: Any = None) -> Cell:
    """An Equinox module, called `module(x, hidden) -> hidden` like `eqx.nn.GRUCell`, as a cell.

    Parameters and gradients are the module with everything but its floating-point arrays left out,
    `params, static = eqx.partition(module, eqx.is_inexact_array)`, so that `eqx.combine(params, static)` is
    the trained module. Other arrays are constants.

    Args:
        module: a module, from whose arrays `init` starts whatever its key is; or what makes a new module
            for each key, called with `key=`, such as `functools.partial(eqx.nn.GRUCell, 3, 8)`.
        hidden: number of units or an example of the hidden state, as in `foretrace.cell`; by default
            `module.hidden_size`, and for `eqx.nn.LSTMCell` two such vectors (h, c).
        inputs: likewise; by default `module.input_size`.

    Returns:
        The cell. Where a size is given, a vector of the dtype of the parameters is meant.

    Raises:
        ImportError: Equinox is not installed.
        TypeError: `module` is no module and makes none, or has complex arrays.
        ValueError: `hidden` or `inputs` is missing, or does not fit the module.

    Example:
        >>> import equinox as eqx, jax, foretrace as ft
        >>> cell = ft.from_equinox(eqx.nn.GRUCell(3, 8, key=jax.random.key(0)))
        >>> learner = ft.ok(cell, rank=4)
        >>> params = cell.init(jax.random.key(1))
        >>> params.weight_hh.shape
        (24, 8)
    """
    eqx = _package("equinox", "from_equinox", "equinox")
    make = _maker(module, eqx.Module, "equinox.Module", "key", lambda key: key)
    params, static = eqx.partition(example := make(jax.random.key(0)), eqx.is_inexact_array)
    inputs = _example("inputs", getattr(example, "input_size", None) if inputs is None else inputs, params)
    if hidden is None:
        hidden = getattr(example, "hidden_size", None)
        if isinstance(example, eqx.nn.LSTMCell):
            hidden = (_example("hidden", hidden, params),) * 2
    return cell(
        lambda params, hidden, x: eqx.combine(params, static)(x, hidden),
        init=lambda key: eqx.filter(make(key), eqx.is_inexact_array),
        hidden=_example("hidden", hidden, params),
        inputs=inputs,
    )


def from_flax(module: Any, *, hidden: Any = None, inputs: Any = None) -> Cell:
    """A Flax NNX module, called `module(hidden, x) -> (hidden, output)` like `nnx.GRUCell`, as a cell.

    Parameters and gradients are the `nnx.State` of the module's `nnx.Param`, so that
    `nnx.update(module, params)` puts what was learned into the module. Other variables are constants:
    what a step writes into them is forgotten. The output is not used: a readout sees the hidden state.
    Dropout draws from a key in the input, `dropout(h, rngs=nnx.Rngs(dropout=x["key"]))`.

    Args:
        module: a module, from whose parameters `init` starts whatever its key is; or what makes a new
            module for each key, called with `rngs=`, such as `functools.partial(nnx.GRUCell, 3, 8)`.
        hidden: number of units or an example of the hidden state, as in `foretrace.cell`; by default what
            `module.initialize_carry` gives.
        inputs: likewise; by default `module.in_features`.

    Returns:
        The cell. Where a size is given, a vector of the dtype of the parameters is meant.

    Raises:
        ImportError: Flax is not installed.
        TypeError: `module` is no NNX module and makes none (Linen's are not), or has complex parameters.
        ValueError: `hidden` or `inputs` is missing, or does not fit the module, or a step normalises by
            its batch.

    Example:
        >>> import functools, jax, foretrace as ft
        >>> from flax import nnx
        >>> cell = ft.from_flax(functools.partial(nnx.GRUCell, 3, 8))
        >>> learner = ft.ok(cell, rank=4)
        >>> params = cell.init(jax.random.key(0))
        >>> params.dense_h.kernel.shape
        (8, 24)
    """
    nnx = _package("flax.nnx", "from_flax", "flax")
    make = _maker(module, nnx.Module, "flax.nnx.Module", "rngs", nnx.Rngs)
    graph, params, constants = nnx.split(example := make(jax.random.key(0)), nnx.Param, ...)
    inputs = _example("inputs", getattr(example, "in_features", None) if inputs is None else inputs, params)
    if hidden is None and hasattr(example, "initialize_carry"):
        shape = jax.tree.leaves(inputs)[0].shape
        hidden = example.initialize_carry(shape, rngs=nnx.Rngs(jax.random.key(0)))

    def step(params, hidden, x):
        # A copy, so that what a module writes down in its variables is forgotten after the step.
        copy = nnx.merge(graph, params, constants, copy=True)
        averages = jax.tree.leaves(nnx.state(copy, nnx.BatchStat))
        new, _ = copy(hidden, x)
        after = jax.tree.leaves(nnx.state(copy, nnx.BatchStat))
        if any(a is not b for a, b in zip(averages, after, strict=True)):
            raise UserError(
                "module must not normalise by its batch, since a step has one example; got a module that "
                "changes its running averages; call module.eval() first, which uses them as they are, or "
                "take nnx.LayerNorm."
            )
        return new

    return cell(
        step,
        init=lambda key: nnx.state(make(key), nnx.Param),
        hidden=_example("hidden", hidden, params),
        inputs=inputs,
    )


def _package(name: str, user: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{user} needs {extra}, which cannot be imported; pip install 'foretrace[{extra}]'."
        ) from error


def _maker(
    module: Any, kind: type, name: str, option: str, wrap: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """`(key) -> module`: the module itself, or a new one of the class, `module(option=wrap(key))`."""
    if isinstance(module, kind):
        return lambda key: module

    def refuse_linen(made):
        mro = getattr(made, "__mro__", type(made).__mro__)
        if any(base.__module__.startswith("flax.linen") for base in mro):
            raise UserTypeError(
                f"module must be a {name}; got one of flax.linen; use foretrace.cell(lambda p, h, x: "
                "module.apply(p, h, x)[0], init=lambda key: module.init(key, h, x), hidden=h, inputs=x) "
                "with examples h and x."
            )

    refuse_linen(getattr(module, "func", module))

    def make(key):
        instance = module(**{option: wrap(key)}) if callable(module) else module
        refuse_linen(instance)
        if not isinstance(instance, kind):
            raise UserTypeError(
                f"module must be a {name} or what makes one, given {option}=; got "
                f"{type(instance).__name__}; a plain function becomes a cell with foretrace.cell."
            )
        return instance

    return make


def _example(name: str, spec: Any, params: Params) -> Any:
    """A size as a vector of the parameters' dtype; anything else as it is."""
    if spec is None:
        raise UserError(
            f"{name} must be given for a module that does not tell it; got None; give a size or an example."
        )
    if not isinstance(spec, int):
        return spec
    dtype = next((leaf.dtype for leaf in jax.tree.leaves(params)), jnp.float32)
    return jnp.zeros(size(name, spec), dtype)
