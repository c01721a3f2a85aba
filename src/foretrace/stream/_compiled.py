"""The compiled functions of each kind of stream, one set for every plan, shared by all its models."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._xla import jit_unoptimised
from foretrace.stream import _classification, _forecast, _regression
from foretrace.stream._changes import Plan
from foretrace.stream._classification import Classes
from foretrace.stream._interval import bounds

_CHUNK = (
    256  # rows of one dispatch; what is left over goes one by one, so that nothing else is ever compiled
)


class Packed(NamedTuple):
    """A state as few arrays, because every array costs time at every call.

    Attributes:
        floats: all floats in one vector.
        others: the few leaves of other dtypes.
    """

    floats: jax.Array
    others: tuple[Any, ...]


class Compiled(NamedTuple):
    """Functions of one plan; states are `Packed`.

    Attributes:
        initial: `(key) -> state`.
        answer: `(state, *question) -> answer`, without learning.
        answer_after: the same after a hidden state, where questions are still open.
        answers: `answer` for many rows of features with the same state.
        learn: `(state, x, y) -> state, what was said of y before`; the old state is gone.
        learn_at: `learn` for what was asked at an earlier time; its last argument tells of that time.
        chunk: `learn` for rows in order, in one scan.
        pack: `(tree) -> state`.
        unpack: `(state) -> tree`.
    """

    initial: Callable
    answer: Callable
    answer_after: Callable
    answers: Callable
    learn: Callable
    learn_at: Callable
    chunk: Callable
    pack: Callable
    unpack: Callable


@functools.cache
def regression(plan: Plan) -> Compiled:
    """`answer(state, x)`, `answer_after(state, x, hidden)`, `learn_at(state, x, y, recent)`."""

    def after(state, x, hidden):
        return _regression.answer(plan, state, x, hidden)

    def answer(state, x):
        said = after(state, x, state.network.learner.hidden)
        return jnp.concatenate([said.value[None], said.bounds])

    def learn(state, x, y):
        return _regression.learn(plan, state, x, y, state.recent)

    at = functools.partial(_regression.learn, plan)
    return _compiled(functools.partial(_regression.initial, plan), answer, after, learn, at)


@functools.cache
def forecasting(plan: Plan) -> Compiled:
    """`answer(state, xs)`; what `learn` gives beside the state, `outlook` takes apart."""

    def learn(state, x, y):
        state, before = _forecast.learn(plan, state, x, y)
        known = state.state.interval
        around = state.forecast[None] + bounds(known).T
        return state, jnp.concatenate([before, state.forecast, around.ravel(), known.tail[None]])

    answer = functools.partial(_forecast.forecast, plan)
    return _compiled(functools.partial(_forecast.initial, plan), answer, answer, learn, learn)


@functools.cache
def classification(plan: Classes) -> Compiled:
    """`answer(state, x)`, `answer_after(state, x, hidden)`, `learn_at(state, x, y, last)`."""

    def after(state, x, hidden):
        return _classification.answer(plan, state, x, hidden)

    def answer(state, x):
        return after(state, x, state.network.learner.hidden).logits

    def learn(state, x, y):
        return _classification.learn(plan, state, x, y, state.last)

    at = functools.partial(_classification.learn, plan)
    return _compiled(functools.partial(_classification.initial, plan), answer, after, learn, at)


class Outlook(NamedTuple):
    """What a forecaster says at one time or, with a leading axis, at many.

    Attributes:
        before: (H,), what had been said of the value that came, at each horizon.
        forecast: (H,), what is said of those to come.
        lower: (H,), its bounds.
        upper: (H,).
        tail: share of errors one step ahead that were at least as large as that of the value that came.
    """

    before: np.ndarray
    forecast: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    tail: np.ndarray


def outlook(said: Any) -> Outlook:
    """Takes apart what a forecaster's `learn` or `chunk` gives beside the state."""
    said = np.asarray(said)
    parts = said[..., :-1].reshape(*said.shape[:-1], 4, -1)
    before, forecast, lower, upper = (parts[..., i, :] for i in range(4))
    return Outlook(before, forecast, lower, upper, said[..., -1])


def run_rows(compiled: Compiled, state: Any, *columns: np.ndarray) -> tuple[Any, np.ndarray]:
    """Learns rows in order, as `learn` would one by one.

    Args:
        compiled: the functions.
        state: given away.
        columns: (rows, ..) each.

    Returns:
        The state, and what was said before each row, (rows, ..).
    """
    said, rows = [], len(columns[0])
    whole = rows - rows % _CHUNK
    for start in range(0, whole, _CHUNK):
        state, before = compiled.chunk(state, *(column[start : start + _CHUNK] for column in columns))
        said.append(np.asarray(before))
    for index in range(whole, rows):
        state, before = compiled.learn(state, *(column[index] for column in columns))
        said.append(np.asarray(before)[None])
    return state, np.concatenate(said)


def _compiled(
    initial: Callable, answer: Callable, after: Callable, learn: Callable, at: Callable
) -> Compiled:
    shapes = jax.eval_shape(initial, jax.random.key(0))
    like, treedef = jax.tree.flatten(shapes)
    is_float = [leaf.dtype == jnp.result_type(float) for leaf in like]

    def pack(tree):
        leaves = jax.tree.leaves(tree)
        floats = [leaf.ravel() for leaf, yes in zip(leaves, is_float, strict=True) if yes]
        others = [leaf for leaf, yes in zip(leaves, is_float, strict=True) if not yes]
        return Packed(jnp.concatenate(floats), tuple(others))

    def unpack(state):
        ends = np.cumsum([leaf.size for leaf, yes in zip(like, is_float, strict=True) if yes])
        floats, others = iter(jnp.split(state.floats, ends[:-1].tolist())), iter(state.others)
        leaves = [
            next(floats).reshape(leaf.shape) if yes else next(others)
            for leaf, yes in zip(like, is_float, strict=True)
        ]
        return jax.tree.unflatten(treedef, leaves)

    def reads(of):
        return lambda state, *given: of(unpack(state), *given)

    def writes(of):
        def packed(state, *given):
            tree, said = of(unpack(state), *given)
            return pack(tree), said

        return packed

    def chunk(state, *columns):
        return jax.lax.scan(lambda tree, row: learn(tree, *row), state, columns)

    return Compiled(
        initial=jit_unoptimised(lambda key: pack(initial(key))),
        answer=jax.jit(reads(answer)),
        answer_after=jax.jit(reads(after)),
        answers=jax.jit(jax.vmap(reads(answer), in_axes=(None, 0))),
        learn=jax.jit(writes(learn), donate_argnums=0),
        learn_at=jax.jit(writes(at), donate_argnums=0),
        chunk=jax.jit(writes(chunk), donate_argnums=0),
        pack=jax.jit(pack),
        unpack=jax.jit(unpack),
    )


def float_array(values: Any) -> np.ndarray:
    """Values as the library's floats."""
    return np.asarray(values, jax.dtypes.canonicalize_dtype(float))
