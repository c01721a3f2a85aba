"""The conformance suite: what every cell and every learner has to hold, for those of a user's own as well.

`check_cell(cell)` and `check_learner(make, cell)` compute what is claimed another way, on short random
streams, and raise AssertionError with the claim that fails. They need no test framework:

    def test_my_learner():
        foretrace.testing.check_learner(my_learner, foretrace.cells.rnn(hidden=3, inputs=2), exact=True)
"""

from collections.abc import Callable
from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._types import Cell, Learner, at_phase
from foretrace.learners import rtrl, run_blocks
from foretrace.structure._find import structure_of
from foretrace.testing._oracles import assert_close, assert_that, draw, exact, stream

_STEPS = 7


def check_cell(cell: Cell, *, steps: int = _STEPS) -> None:
    """Checks that a cell is what learners take it for.

    Its parts fit each other in structure, shape and dtype; a step is a pure function, the same under `jit`
    and `vmap`; its structure gives its derivative; exact RTRL through this structure is the
    gradient of the unrolled loss.

    Args:
        cell: the cell.
        steps: length of the random streams.

    Raises:
        AssertionError: with the claim that does not hold.
        TypeError, ValueError: the parts do not fit.

    Example:
        >>> import foretrace as ft
        >>> from foretrace.testing import check_cell
        >>> check_cell(ft.cells.rnn(hidden=3, inputs=2))
    """
    key = jax.random.key(0)
    first, again = cell.init(key), cell.init(jax.random.clone(key))
    assert_close(first, again, 0.0, "init must be a pure function of its key")
    params, (xs, credits) = draw(cell), stream(cell, steps)
    hidden, x = cell.initial_hidden(), jax.tree.map(lambda a: a[0], xs)
    tolerance = _tolerance(hidden)
    plain = cell.step(params, hidden, x)
    assert_close(cell.step(params, hidden, x), plain, 0.0, "step must be a pure function")
    assert_close(jax.jit(cell.step)(params, hidden, x), plain, tolerance, "step must be the same under jit")
    lanes = jax.vmap(cell.step, in_axes=(None, None, 0))(params, hidden, xs)
    lane = jax.tree.map(lambda a: a[0], lanes)
    assert_close(lane, plain, tolerance, "step must be the same under vmap")
    structure_of(cell, params)
    _assert_gradients(rtrl(cell), cell, params, xs, credits)


def check_learner(
    make: Callable[[Cell], Learner],
    cell: Cell,
    *,
    exact: bool = False,
    unbiased: bool = False,
    steps: int = _STEPS,
) -> None:
    """Checks that a learner keeps to the protocol, and to its claims.

    The hidden state is the cell's. State, info and gradient keep their structure, shapes and dtypes. There
    is no gradient before the first step or right after a restart; a lane that restarts forgets its past and
    leaves the others alone. One lane is a single stream. Steps in a scan, one by one and in blocks are the
    same, and `sweep` sums their gradients. A second call compiles nothing.

    Args:
        make: the learner's factory, of a cell alone.
        cell: the cell to check it on, small.
        exact: whether its gradient claims to be that of the unrolled loss at every step.
        unbiased: whether it claims to be that in the mean: the mean over 1000 keys must then lie within
            five standard errors.
        steps: least length of the random streams, which are of whole blocks, and two at least.

    Raises:
        AssertionError: with the claim that does not hold.

    Example:
        >>> import foretrace as ft
        >>> from foretrace.testing import check_learner
        >>> check_learner(ft.rtrl, ft.cells.rnn(hidden=3, inputs=2), exact=True)
    """
    learner, params = _compiled(make(cell)), draw(cell)
    steps = max(2, -(-steps // learner.block)) * learner.block
    xs, credits = stream(cell, steps, 2)
    tolerance = _tolerance(cell.initial_hidden())
    scanned = jax.jit(lambda xs, restart: _scan(learner, params, xs, credits, restart, 2))
    never = jnp.zeros((steps, 2), bool)
    gradients, infos, last = scanned(xs, never)

    hidden = jax.tree.map(lambda a: jnp.stack([a, a]), cell.initial_hidden())
    step = jax.jit(jax.vmap(cell.step, in_axes=(None, 0, 0)))
    for t in range(steps):
        hidden = step(params, hidden, _at(xs, t))
    assert_close(last.hidden, hidden, tolerance, "state.hidden must be the cell's hidden state")
    for name, part in (("state", last), ("info", infos)):
        assert_that(hasattr(part, "_fields"), f"{name} must be a NamedTuple; got a {type(part).__name__}")

    _check_calls(learner, params, xs, credits, gradients, tolerance)
    _check_restarts(learner, params, scanned, xs, credits, tolerance)
    _check_blocks(learner, params, xs, credits, gradients, tolerance)
    lane, single = (jax.tree.map(lambda a, k=k: a[:, k], (xs, credits, never)) for k in (slice(1), 0))
    of_lane, *_ = _scan(learner, params, lane[0], lane[1], lane[2], 1)
    of_single, *_ = _scan(learner, params, single[0], single[1], single[2], None)
    assert_close(of_single, of_lane, tolerance, "a single stream must be one lane")
    if exact:
        _assert_gradients(learner, cell, params, *single[:2])
    if unbiased:
        _check_mean(learner, cell, params, *single)


def _check_calls(learner, params, xs, credits, gradients, tolerance) -> None:
    """One call after another is the scan, in the same program, and nothing changes its shape."""
    traces = []

    def both(params, state, x, credit):
        traces.append(1)
        state, info = learner.step(params, state, x)
        return state, info, learner.grad(params, state, credit)

    both = jax.jit(both)
    state = learner.init(jax.random.key(1), params, 2)
    before = learner.grad(params, state, _at(credits, 0))
    assert_close(before, jax.tree.map(jnp.zeros_like, params), 0.0, "no gradient before the first step:")
    kinds = jax.tree.map(lambda a: (a.shape, a.dtype), state)
    for t in range(len(jax.tree.leaves(xs)[0])):
        state, _, gradient = both(params, state, _at(xs, t), _at(credits, t))
        assert_close(gradient, _at(gradients, t), tolerance, "a scan must be the loop:")
    assert_that(
        jax.tree.map(lambda a: (a.shape, a.dtype), state) == kinds, "a step must keep the state's shapes"
    )
    assert_that(len(traces) == 1, f"one program must do for all steps; it was compiled {len(traces)} times")


def _check_restarts(learner, params, scanned, xs, credits, tolerance) -> None:
    """A restart forgets the past of its lane, and nothing else."""
    steps = len(jax.tree.leaves(xs)[0])
    at = steps // 2 + 1
    restart = jnp.zeros((steps, 2), bool).at[at].set(True)
    other = jax.tree.map(lambda a: a.at[:at].multiply(jnp.asarray(-3, a.dtype)), xs)
    one, two = (_at(scanned(inputs, restart)[0], slice(at, None)) for inputs in (xs, other))
    assert_close(one, two, tolerance, "nothing of the past may be left after a restart:")
    *_, state = scanned(xs, jnp.zeros_like(restart))
    begun = learner.reset(state, jnp.array([True, True]))
    gradient = learner.grad(params, begun, _at(credits, 0))
    assert_close(gradient, jax.tree.map(jnp.zeros_like, params), 0.0, "no gradient right after a restart:")
    apart = [learner.reset(state, jnp.array(lanes)) for lanes in ([True, False], [False, True])]
    whole, *parts = (learner.grad(params, s, _at(credits, 0)) for s in (state, *apart))
    total = jax.tree.map(jnp.add, *parts)
    assert_close(total, whole, tolerance, "a lane that goes on must not notice another's restart:")


def _check_blocks(learner, params, xs, credits, expected, tolerance) -> None:
    """Blocks of steps are the same as steps, and `sweep` is the sum of their gradients."""

    @jax.jit
    def blocks(xs, credits):
        # At a block's start, which a traced state does not show: ending a block is compiled but once.
        state = at_phase(learner.init(jax.random.key(1), params, 2), 0)

        def read(params, state, x):
            return params, (learner.grad(params, state, x[1]), x[1])

        def end(params, state, outs):
            return params, (outs[0], learner.sweep(params, state, outs[1]))

        return run_blocks(learner, params, state, (xs, credits), read, end, inputs=itemgetter(0))[2]

    gradients, totals = blocks(xs, credits)
    flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), gradients)
    assert_close(flat, expected, tolerance, "blocks of steps must be the steps:")
    total = jax.tree.map(lambda a: jnp.sum(a, axis=1), gradients)
    assert_close(totals, total, tolerance, "sweep must sum the gradients of a block:")


def _assert_gradients(learner, cell, params, xs, credits) -> None:
    never = jnp.zeros(len(jax.tree.leaves(xs)[0]), bool)
    gradients, _, _ = _scan(learner, params, xs, credits, never, None)
    expected = exact(cell, params, xs, credits)
    tolerance = _tolerance(cell.initial_hidden())
    assert_close(gradients, expected, tolerance, "the gradient must be that of the unrolled loss:")


def _check_mean(learner, cell, params, xs, credits, never) -> None:
    keys = jax.random.split(jax.random.key(2), 1000)
    run = jax.jit(jax.vmap(lambda key: _scan(learner, params, xs, credits, never, None, key)[0]))
    expected = exact(cell, params, xs, credits)
    for got, want in zip(jax.tree.leaves(run(keys)), jax.tree.leaves(expected), strict=True):
        error = np.std(got, axis=0) / np.sqrt(len(keys))
        # Where nothing is random, rounding remains.
        bound = 5 * error + _tolerance(cell.initial_hidden()) * (1 + np.abs(want).max(initial=0))
        wrong = np.abs(np.mean(got, axis=0) - want)
        assert_that(
            bool(np.all(wrong <= bound)), f"the mean gradient must be exact; it is off by {wrong.max()}"
        )


def _scan(learner, params, xs, credits, restart, lanes, key=None):
    """A stream: gradients at every step, infos, the last state."""
    key = jax.random.key(1) if key is None else key
    return jax.jit(partial(_stream, learner), static_argnums=5)(params, xs, credits, restart, key, lanes)


def _stream(learner, params, xs, credits, restart, key, lanes):
    """What `_scan` compiles: a step and a gradient at every element of the stream."""

    def step(state, inputs):
        x, credit, again = inputs
        state, info = learner.step(params, learner.reset(state, again), x)
        return state, (learner.grad(params, state, credit), info)

    state = learner.init(key, params, lanes)
    state, (gradients, infos) = jax.lax.scan(step, state, (xs, credits, restart))
    return gradients, infos, state


def _compiled(learner: Learner) -> Learner:
    """The learner with functions that compile as a whole, not operation by operation."""
    init = jax.jit(learner.init, static_argnums=2)
    return learner._replace(init=init, grad=jax.jit(learner.grad), reset=jax.jit(learner.reset))


def _tolerance(hidden) -> float:
    """For sums over a few steps, relative to the largest entry."""
    return 1e-10 if jax.tree.leaves(hidden)[0].dtype == jnp.float64 else 1e-4


def _at(tree, i):
    return jax.tree.map(lambda a: a[i], tree)
