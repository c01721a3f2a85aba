"""Compiled functions of each kind of stream, one set for every configuration, shared by all its models."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._xla import in_one_kernel, jit_unoptimised
from foretrace.stream import _classification, _forecast, _regression
from foretrace.stream._classification import ClassConfig
from foretrace.stream._state import Config

# Rows of one dispatch. The rest goes one by one, so that no other length is ever compiled.
_CHUNK = 256
_SMALL = 256  # numbers below which an array is packed with others


class Packed(NamedTuple):
    """State as few arrays, because every array costs time at every call.

    Attributes:
        small: the small arrays of each dtype in one vector; keys are numbers.
        large: the others, which are updated in place.
    """

    small: tuple[jax.Array, ...]
    large: tuple[jax.Array, ...]


class Compiled(NamedTuple):
    """Functions of one configuration; states are `Packed`.

    Attributes:
        init: `(key) -> state`.
        predict: `(state, *features) -> prediction`, without learning.
        predict_after: `predict` after a hidden state, while labels of earlier predictions are pending.
        predict_many: `predict` for many rows of features with the same state.
        learn: `(state, *row) -> state, prediction before the row was learned`; the old state is donated. A
            row is `x, y`, and the weight of the sample, of a forecast its calendar.
        learn_late: `learn` for a delayed label; the last argument is the context saved with the prediction.
        learn_chunk: `learn` for rows in order, in one scan.
        learn_series: `(states, counts, *rows) -> states, predictions` for many series side by side: states
            (series, ..), rows (n, series, ..), of which each series learns its first `counts`, (series,).
        pack: `(tree) -> state`.
        unpack: `(state) -> tree`.
    """

    init: Callable
    predict: Callable
    predict_after: Callable
    predict_many: Callable
    learn: Callable
    learn_late: Callable
    learn_chunk: Callable
    learn_series: Callable
    pack: Callable
    unpack: Callable


@functools.cache
def regression(config: Config) -> Compiled:
    """`predict(state, x)`, `predict_after(state, x, hidden)`, `learn_late(state, x, y, weight, late)`."""
    predict_after = functools.partial(_regression.predict, config)
    learn = functools.partial(_regression.learn, config)

    def predict(state, x):
        value, offsets, origin, *_ = predict_after(state, x, state.network.learner.hidden)
        return jnp.concatenate([value[None], value + offsets, *origin])

    init = functools.partial(_regression.init, config)
    return _compiled(init, predict, predict_after, learn, learn)


@functools.cache
def forecasting(config: Config) -> Compiled:
    """`predict(state, xs)`; `learn` gives a packed `ForecastResult` beside the state."""

    def learn(state, x, y, *calendar):
        state, result = _forecast.learn(config, state, x, y, *calendar)
        return state, result.pack()

    predict = functools.partial(_forecast.forecast, config)
    return _compiled(functools.partial(_forecast.init, config), predict, predict, learn, learn)


@functools.cache
def classification(config: ClassConfig) -> Compiled:
    """`predict(state, x)`, `predict_after(state, x, hidden)`, `learn_late(state, x, y, weight, last)`."""
    predict_after = functools.partial(_classification.predict, config)
    learn_late = functools.partial(_classification.learn, config)

    def predict(state, x):
        return predict_after(state, x, state.network.learner.hidden).logits

    def learn(state, x, y, weight):
        return learn_late(state, x, y, weight, state.last)

    init = functools.partial(_classification.init, config)
    return _compiled(init, predict, predict_after, learn, learn_late)


def run_rows(compiled: Compiled, state: Any, *columns: np.ndarray) -> tuple[Any, np.ndarray]:
    """Learns rows in order, as `learn` would one by one.

    Args:
        compiled: the functions.
        state: donated.
        columns: (rows, ..) each.

    Returns:
        The state, and the output of `learn` at each row, (rows, ..).
    """
    outputs, rows = [], len(columns[0])
    whole = rows - rows % _CHUNK
    for start in range(0, whole, _CHUNK):
        state, output = compiled.learn_chunk(state, *(column[start : start + _CHUNK] for column in columns))
        outputs.append(np.asarray(output))
    for index in range(whole, rows):
        state, output = compiled.learn(state, *(column[index] for column in columns))
        outputs.append(np.asarray(output)[None])
    return state, np.concatenate(outputs)


def _compiled(
    init: Callable, predict: Callable, predict_after: Callable, learn: Callable, learn_late: Callable
) -> Compiled:
    like, treedef = jax.tree.flatten(jax.eval_shape(init, jax.random.key(0)))
    keys = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in like]
    like = [
        jax.eval_shape(jax.random.key_data, leaf) if key else leaf
        for leaf, key in zip(like, keys, strict=True)
    ]
    dtypes = sorted({leaf.dtype for leaf in like if leaf.size < _SMALL}, key=str)
    slots = [dtypes.index(leaf.dtype) if leaf.size < _SMALL else None for leaf in like]

    def pack(tree):
        leaves = [
            jax.random.key_data(leaf) if key else leaf
            for leaf, key in zip(jax.tree.leaves(tree), keys, strict=True)
        ]
        vectors = [
            jnp.concatenate(
                [leaf.ravel() for leaf, slot in zip(leaves, slots, strict=True) if slot == number]
            )
            for number in range(len(dtypes))
        ]
        # With its dtype said, so that an array made of a Python number does not compile everything twice.
        large = [
            jnp.asarray(leaf, leaf.dtype) for leaf, slot in zip(leaves, slots, strict=True) if slot is None
        ]
        return Packed(tuple(vectors), tuple(large))

    def unpack(state):
        parts: dict[int | None, Any] = {None: iter(state.large)}
        for number, vector in enumerate(state.small):
            sizes = [leaf.size for leaf, slot in zip(like, slots, strict=True) if slot == number]
            parts[number] = iter(jnp.split(vector, np.cumsum(sizes)[:-1].tolist()))
        leaves = [next(parts[slot]).reshape(leaf.shape) for leaf, slot in zip(like, slots, strict=True)]
        leaves = [
            jax.random.wrap_key_data(leaf) if key else leaf for leaf, key in zip(leaves, keys, strict=True)
        ]
        return jax.tree.unflatten(treedef, leaves)

    def reads(function):
        return lambda state, *arguments: function(unpack(state), *arguments)

    def reads_at_once(function):
        step = in_one_kernel(lambda state, *arguments: (state, reads(function)(state, *arguments)))
        return lambda state, *arguments: step(state, *arguments)[1]

    def writes(function):
        def packed(state, *arguments):
            tree, output = function(unpack(state), *arguments)
            return pack(tree), output

        return packed

    def learn_chunk(state, *columns):
        return jax.lax.scan(lambda tree, row: learn(tree, *row), state, columns)

    def learn_series(states, counts, *columns):
        def step(number, carry):
            trees, outputs = carry
            new, output = jax.vmap(learn)(trees, *(column[number] for column in columns))
            is_wanted = number < counts

            def choose(after, before):
                return jnp.where(is_wanted.reshape(-1, *[1] * (after.ndim - 1)), after, before)

            return jax.tree.map(choose, new, trees), outputs.at[number].set(output)

        trees = jax.vmap(unpack)(states)
        output = jax.eval_shape(jax.vmap(learn), trees, *(column[0] for column in columns))[1]
        outputs = jnp.zeros((len(columns[0]), *output.shape), output.dtype)
        trees, outputs = jax.lax.fori_loop(0, jnp.max(counts), step, (trees, outputs))
        return jax.vmap(pack)(trees), outputs

    return Compiled(
        init=jit_unoptimised(lambda key: pack(init(key))),
        predict=jax.jit(reads_at_once(predict)),
        predict_after=jax.jit(reads_at_once(predict_after)),
        predict_many=jax.jit(jax.vmap(reads(predict), in_axes=(None, 0))),
        learn=jax.jit(in_one_kernel(writes(learn)), donate_argnums=0),
        learn_late=jax.jit(in_one_kernel(writes(learn_late)), donate_argnums=0),
        learn_chunk=jax.jit(writes(learn_chunk), donate_argnums=0),
        learn_series=jax.jit(learn_series, donate_argnums=0),
        pack=jax.jit(pack),
        unpack=jax.jit(unpack),
    )


def float_array(values: Any) -> np.ndarray:
    """Values in the floating-point type of JAX."""
    return np.asarray(values, jax.dtypes.canonicalize_dtype(float))
