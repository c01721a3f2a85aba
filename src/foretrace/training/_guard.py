"""A training chunk that skips and counts non-finite samples, lanes and updates, and names the first tensor.

The plain loop is not slowed down by this: a chunk that ends with something that is not finite is run again
from its beginning, guarded. Three parts of the loop are guarded, each by another of its kind:

- the stream: a lane whose input or target is not finite begins anew, and that step has no loss for it;
- the learner: a lane whose hidden state or influence is not finite begins anew before the next step;
- the optimiser: an update that is not finite is dropped.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from foretrace._types import Cell, Learner
from foretrace.tasks import Task
from foretrace.training._loop import Carry, Metrics, Streams, trainer

# What may be not finite, in the order in which one follows from the other within a step.
TENSORS = ("input", "target", "hidden", "influence", "loss", "gradient")
NEVER = 2**31 - 1


class NonFinite(NamedTuple):
    """What was not finite in a chunk.

    Attributes:
        first: for every one of `TENSORS` its first step, from 1, or `NEVER`.
        skipped: samples, lanes and updates that were left out.
    """

    first: Any
    skipped: Any


class _Watched(NamedTuple):
    """The state of a guarded part: that of the part itself, steps so far, and the report so far."""

    inner: Any
    steps: Any
    report: NonFinite

    @property
    def hidden(self) -> Any:
        """Hidden state, where the part is a learner."""
        return self.inner.hidden

    @property
    def phase(self) -> Any:
        """Place in the block, where the part is a learner whose blocks have an end to wait for."""
        return self.inner.phase

    def at_phase(self, index: Any) -> "_Watched":
        """The same state at this place in the block."""
        return self._replace(inner=self.inner.at_phase(index))


def guarded(
    cell: Cell,
    learner: Learner,
    task: Task,
    optimizer: optax.GradientTransformation,
    *,
    lanes: int,
    clip: float | None = None,
    update_every: int = 1,
    **options: Any,
) -> Callable[[Carry], tuple[Carry, Metrics, NonFinite]]:
    """The chunk of `trainer` with the same arguments, guarded.

    Returns:
        `(carry) -> (carry, metrics, report)`. Where all is finite it does the same steps, up to rounding.
        Parameters that are not finite stay so.
    """
    if clip is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(clip), optimizer)
    watched, clean = _guard_learner(learner, lanes)
    stream, steady = _guard_task(task), _guard_optimizer(optimizer, update_every)
    guarded_trainer = trainer(
        cell, watched, stream, steady, lanes=lanes, update_every=update_every, **options
    )  # fmt: skip

    def chunk(carry):
        streams = Streams(*map(_begin, carry.streams))
        carry, metrics = guarded_trainer.chunk(Carry(carry.params, _begin(carry.optimizer), streams))
        parts = clean(carry.params["cell"], carry.streams.learner), carry.streams.task, carry.optimizer
        first = jnp.min(jnp.stack([part.report.first for part in parts]), axis=0)
        skipped = jnp.sum(jnp.stack([part.report.skipped for part in parts]))
        streams = Streams(parts[0].inner, parts[1].inner)
        return Carry(carry.params, parts[2].inner, streams), metrics, NonFinite(first, skipped)

    return chunk


def _guard_task(task: Task) -> Task:
    def sample(state):
        inner, example = task.sample(state.inner)
        bad = {"input": ~_finite(example.x, 0), "target": ~_finite(example.target, 0)}
        lost = bad["input"] | bad["target"]
        example = example._replace(
            x=_select(bad["input"], jnp.zeros_like(example.x), example.x),
            target=_select(
                lost, jnp.full_like(example.target, _missing_target(example.target)), example.target
            ),
            restart=example.restart | lost,
        )
        return _record_nonfinite(
            state._replace(inner=inner, steps=state.steps + 1), bad, jnp.sum(lost)
        ), example

    def of(prediction, target):
        void = (
            target == _missing_target(target)
            if jnp.issubdtype(target.dtype, jnp.integer)
            else ~jnp.isfinite(target)
        )
        void = jnp.any(void)
        loss = task.loss.of(prediction, jnp.where(void, jnp.zeros_like(target), target))
        return jnp.where(void, jnp.zeros_like(loss), loss)

    def feedback(state, loss):
        fine = jnp.isfinite(loss)
        answered = task.feedback(state.inner, jnp.where(fine, loss, jnp.zeros_like(loss)))
        inner = _keep_if(fine, answered, state.inner)
        return _record_nonfinite(state._replace(inner=inner), {"loss": ~fine}, 0)

    return task._replace(
        init=lambda key, lanes: _begin(task.init(key, lanes)),
        sample=sample,
        loss=task.loss._replace(of=of),
        feedback=feedback,
        metrics=lambda state: task.metrics(state.inner),
    )


def _guard_learner(learner: Learner, lanes: int) -> tuple[Learner, Callable[[Any, Any], Any]]:
    """The learner, and what lets lanes that are not finite begin anew."""

    def clean(params, state):
        axes = lane_axes(partial(_state_shapes, learner, params), lanes)
        hidden = _lanes_finite(state.inner.hidden, axes.hidden, lanes)
        both = _lanes_finite(state.inner, axes, lanes)
        state = _record_nonfinite(state, {"hidden": ~hidden, "influence": hidden & ~both}, jnp.sum(~both))
        blank = learner.init(jax.random.key(0), params, lanes=lanes)

        def begin(old, new, axis):
            if axis < 0 or not jnp.issubdtype(old.dtype, jnp.inexact):
                return old
            return _select(both, old, new, axis)

        # Its steps so far are still in the window; the cut keeps them from being read.
        inner = jax.tree.map(begin, state.inner, blank, axes)
        return state._replace(inner=learner.reset(inner, ~both))

    def advance(params, state, x):
        state = clean(params, state)
        return state._replace(inner=learner.advance(params, state.inner, x), steps=state.steps + 1)

    def end_block(params, state):
        state = clean(params, state)
        inner, info = learner.end_block(params, state.inner)
        return state._replace(inner=inner), info

    guarded_learner = Learner(
        init=lambda key, params, lanes=None: _begin(learner.init(key, params, lanes=lanes)),
        advance=advance,
        end_block=end_block,
        grad=lambda params, state, credit: learner.grad(params, state.inner, credit),
        sweep=lambda params, state, credits: learner.sweep(params, state.inner, credits),
        reset=lambda state, restart: state._replace(inner=learner.reset(state.inner, restart)),
        block=learner.block,
    )
    return guarded_learner, clean


def _guard_optimizer(
    optimizer: optax.GradientTransformation, update_every: int
) -> optax.GradientTransformation:
    def update(updates, state, params=None):
        changes, inner = optimizer.update(updates, state.inner, params)
        fine = all_finite((updates, changes, inner))
        changes = jax.tree.map(lambda change: jnp.where(fine, change, jnp.zeros_like(change)), changes)
        state = state._replace(inner=_keep_if(fine, inner, state.inner), steps=state.steps + update_every)
        return changes, _record_nonfinite(state, {"gradient": ~fine}, ~fine)

    functions: Any = lambda params: _begin(optimizer.init(params)), update
    return optax.GradientTransformation(*functions)


def _begin(inner: Any) -> _Watched:
    first = jnp.full(len(TENSORS), NEVER, jnp.int32)
    return _Watched(inner, jnp.int32(0), NonFinite(first, jnp.int32(0)))


def _record_nonfinite(state: _Watched, bad: dict[str, Any], skipped: Any) -> _Watched:
    """Writes down what is not finite at the present step."""
    now = [jnp.any(bad[name]) if name in bad else jnp.bool_(False) for name in TENSORS]
    first = jnp.minimum(state.report.first, jnp.where(jnp.stack(now), state.steps, NEVER))
    return state._replace(report=NonFinite(first, state.report.skipped + jnp.asarray(skipped, jnp.int32)))


def _state_shapes(learner: Learner, params: Any, lanes: int) -> Any:
    return jax.eval_shape(lambda: learner.init(jax.random.key(0), params, lanes=lanes))


def lane_axes(init: Callable[[int], Any], lanes: int) -> Any:
    """For every array of `init(lanes)`, of which only shapes are read, the axis over lanes, or -1."""

    def axis(a, b):
        return next(
            (i for i, pair in enumerate(zip(a.shape, b.shape, strict=True)) if len(set(pair)) > 1), -1
        )

    # Twice as many, since some numbers of lanes a mesh of devices would not divide.
    return jax.tree.map(axis, init(lanes), init(2 * lanes))


def _lanes_finite(tree: Any, axes: Any, lanes: int) -> Any:
    """Which lanes have nothing that is not finite, (lanes,)."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(axes), strict=True)
    fine = [_finite(leaf, axis) for leaf, axis in pairs if axis >= 0]
    return jnp.all(jnp.stack([jnp.ones(lanes, bool), *fine]), axis=0)


def _finite(leaf: Any, axis: int) -> Any:
    """Whether all is finite at every index of one axis."""
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.ones(leaf.shape[axis], bool)
    return jnp.all(jnp.isfinite(leaf), axis=tuple(i for i in range(leaf.ndim) if i != axis))


def floats(tree: Any) -> list[Any]:
    """The leaves that can be not finite."""
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def all_finite(tree: Any) -> Any:
    """Whether every number of a tree is finite."""
    return jnp.all(jnp.stack([jnp.bool_(True), *(jnp.all(jnp.isfinite(leaf)) for leaf in floats(tree))]))


def _select(mask: Any, yes: Any, no: Any, axis: int = 0) -> Any:
    """`yes` where the mask over one axis is true."""
    shape = [1] * yes.ndim
    shape[axis] = -1
    return jnp.where(mask.reshape(shape), yes, no)


def _keep_if(fine: Any, new: Any, old: Any) -> Any:
    """The new tree if it is fine, else the old one, with the new keys: a key is never used twice."""

    def keep(a, b):
        return a if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else jnp.where(fine, a, b)

    return jax.tree.map(keep, new, old)


def _missing_target(target: Any) -> Any:
    """A target that stands for none: not finite, or no symbol."""
    return jnp.iinfo(target.dtype).max if jnp.issubdtype(target.dtype, jnp.integer) else jnp.nan
