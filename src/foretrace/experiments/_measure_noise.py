"""The noise of learners on any network and any stream, beside their price: how a user chooses one."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._checks import UserError, check_positive_int
from foretrace._format import columns
from foretrace._types import Cell, Learner, Params, at_phase
from foretrace._xla import jit_fast_compile
from foretrace.experiments._gradient_error import flat
from foretrace.experiments._timing import learning_loop, spread, take_turns
from foretrace.learners import Choice, analyse, low_rank, parse, rtrl
from foretrace.plotting import Chart, Entry, Line, Page, Table, charts_page, draw_charts

# Of the estimate that stands in for a gradient that is too dear.
_REFERENCE_RANK = 64
_REFERENCE_BLOCK = 32
_HEADING = ("learner", "relative squared error", "bias", "cosine", "us/step", "MB")
_TITLE = "What a gradient is worth, and what it costs"


class Noise(NamedTuple):
    """What one learner's gradients are worth, and what they cost.

    Attributes:
        learner: its name.
        error: E|g - exact|^2 / |exact|^2, both summed over the steps of the streams; the relative variance
            of an unbiased learner.
        spread: standard error of `error` over the draws.
        bias: sum of (g - exact) . exact over that of |exact|^2: 0 where a gradient is right in the mean,
            -1 where it is nothing.
        bias_error: its standard error over the draws.
        cosine: of g and exact, mean over draws and over the steps that have a gradient.
        microseconds: of a step forward with gradient and update, all lanes.
        state_bytes: of the learner's state, all lanes.
    """

    learner: str
    error: float
    spread: float
    bias: float
    bias_error: float
    cosine: float
    microseconds: float
    state_bytes: int


class NoiseTable(NamedTuple):
    """One row per learner; `str()` prints them.

    Attributes:
        rows: in the order in which they were asked for.
        reference: what `exact` was, in words.
        reference_error: relative squared error of the reference itself; 0 where it is exact.
    """

    rows: tuple[Noise, ...]
    reference: str
    reference_error: float

    def __str__(self) -> str:
        rows = [_HEADING, *(tuple(entry.text for entry in row) for row in self._entries())]
        return "\n".join([*columns(rows, right=range(1, 6), rule=True), self._beside()])

    def _entries(self) -> list[list[Entry]]:
        """The texts of each row, and the numbers behind them."""
        return [
            [
                Entry(row.learner, place),
                Entry(f"{row.error:.2g} ± {row.spread:.1g}", row.error),
                Entry(f"{row.bias:+.1e} ± {row.bias_error:.0e}", abs(row.bias)),
                Entry(f"{row.cosine:.4f}", row.cosine),
                Entry(f"{row.microseconds:,.0f}", row.microseconds),
                Entry(f"{row.state_bytes / 1e6:,.2f}", row.state_bytes),
            ]
            for place, row in enumerate(self.rows)
        ]

    def _beside(self) -> str:
        """What the gradients were compared with."""
        own = (
            f", whose own relative squared error is {self.reference_error:.1g}"
            if self.reference_error
            else ""
        )
        return f"beside {self.reference}{own}"

    def page(self, title: str = _TITLE) -> Page:
        """The table and the picture as a page for a browser."""
        table = Table("Gradients", f"Measured {self._beside()}.", _HEADING, self._entries())
        return charts_page([self._chart()], title, tables=[table])

    def draw(self, path: Path, title: str = _TITLE) -> None:
        """Draws the error against time per step, one point per learner.

        Args:
            path: PNG file to write.
            title: of the picture.
        """
        draw_charts([self._chart()], title, path)

    def _chart(self) -> Chart:
        lines = [Line(row.learner, [row.microseconds], [[row.error]]) for row in self.rows]
        floor = min((row.error for row in self.rows if row.error > 0), default=1) / 10
        return Chart("Relative squared error", "us per step", lines, floor=floor, points=True)


def measure_noise(
    cell: Cell,
    params: Params,
    xs: Any,
    credits: Any,
    names: Sequence[str],
    *,
    restarts: Any = None,
    draws: int = 8,
    lanes: int = 1,
    memory: float = 2e9,
) -> NoiseTable:
    """Measures gradients of a network with frozen parameters, along its own streams, against exact ones.

    Every stream begins without a past. Where exact RTRL takes too much memory, low_rank of a high rank
    stands in for it, whose own noise is told: the difference of two of them.

    Args:
        cell: the dynamics.
        params: its parameters.
        xs: inputs, leaves (steps, streams, ..).
        credits: dL_t/dh_t, shaped like the hidden state, leaves (steps, streams, ..).
        names: learners, such as "low_rank:4" or "ok:8/16"; the block is the fastest unless given.
        restarts: (steps, streams) bool, where a stream begins anew; nowhere unless given.
        draws: independent copies of every learner.
        lanes: streams side by side when time and bytes are taken.
        memory: bytes that exact RTRL may take for one stream.

    Returns:
        A `NoiseTable`.

    Raises:
        ValueError: a name is none, a learner does not fit the cell, or not one gradient is above zero.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.rnn(hidden=4, inputs=2)
        >>> params = cell.init(jax.random.key(0))
        >>> xs, credits = jax.numpy.ones((20, 1, 2)), jax.numpy.ones((20, 1, 4))
        >>> table = ft.measure_noise(cell, params, xs, credits, ["ok:2/4"], draws=2)
        >>> table.rows[0].learner
        'ok:2/4'
    """
    check_positive_int("draws", draws, "8 is the default")
    check_positive_int("lanes", lanes, "1 is the default")
    explanation = analyse(cell, params)
    choices = [_with_block(explanation, name, lanes) for name in names]
    members = {str(choice): choice.build(cell) for choice in choices}
    compared = compare(cell, members, params, xs, credits, restarts=restarts, draws=draws, memory=memory)
    times = _times(members, params, xs, lanes)
    rows = []
    for choice in choices:
        name = str(choice)
        error, bias, cosine = compared.values[name]
        rows.append(
            Noise(
                name,
                float(error.mean()),
                _standard_error(error),
                float(bias.mean()),
                _standard_error(bias),
                float(cosine.mean()),
                times[name],
                explanation.cost(choice, lanes=lanes).bytes,
            )
        )
    return NoiseTable(tuple(rows), compared.reference, compared.reference_error)


class Compared(NamedTuple):
    """Gradients beside exact ones.

    Attributes:
        values: per learner its relative squared error, bias and cosine, (draws,) each; see `Noise`.
        reference: what `exact` was, in words.
        reference_error: relative squared error of the reference itself; 0 where it is exact.
    """

    values: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    reference: str
    reference_error: float


def compare(
    cell: Cell,
    members: dict[str, Learner],
    params: Params,
    xs: Any,
    credits: Any,
    *,
    restarts: Any = None,
    draws: int = 8,
    memory: float = 2e9,
) -> Compared:
    """Reads every learner's gradient at every step, beside the exact one; as `measure_noise`, untimed.

    Raises:
        ValueError: no exact gradient is above zero and finite.
    """
    reference, exact = _reference(cell, memory)
    if restarts is None:
        restarts = jnp.zeros(jax.tree.leaves(xs)[0].shape[:2], bool)
    one = partial(_along_one, members, exact, params, draws)
    keys = jax.random.split(jax.random.key(0), restarts.shape[1])
    streams = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), (xs, credits, restarts))
    sums, size, count, own = jit_fast_compile(lambda: jax.lax.map(lambda a: one(*a), (keys, *streams)))()
    total = float(jnp.sum(size))
    if not 0 < total < float("inf"):
        raise UserError(
            "credits must make some exact gradient that is not zero and finite; got "
            f"|gradient|^2 = {total} in all; give those of the loss at this network."
        )
    values, steps = {}, float(jnp.sum(count))
    for name in members:
        error, along, cosine = (np.asarray(a, float) for a in sums[name])  # (streams, draws)
        values[name] = error.sum(axis=0) / total, along.sum(axis=0) / total, cosine.sum(axis=0) / steps
    return Compared(values, reference, float(jnp.sum(own)) / total)


def _with_block(explanation: Any, name: str, lanes: int) -> Choice:
    """The learner of that name, with the fastest block where it names none."""
    choice = parse(name)
    if choice.block is None and choice.spec.takes_block:
        choice = choice._replace(block=explanation.best_block(choice, lanes=lanes))
    return choice


def _reference(cell: Cell, memory: float) -> tuple[str, list[Learner]]:
    """The exact learner, or two of high rank whose mean stands in for it."""
    explanation, block = analyse(cell), 16
    if explanation.cost(f"rtrl/{block}").bytes <= memory:
        return "exact RTRL", [rtrl(cell, block=block)]
    rank = min(_REFERENCE_RANK, explanation.structure.state_size)
    stand_in = low_rank(cell, rank=rank, block=_REFERENCE_BLOCK)
    return f"two low_rank:{rank}/{_REFERENCE_BLOCK}", [stand_in] * 2


def _along_one(
    members: dict[str, Learner],
    exact: list[Learner],
    params: Params,
    draws: int,
    key: Any,
    xs: Any,
    credits: Any,
    restarts: jax.Array,
) -> tuple[dict[str, Any], jax.Array, jax.Array, jax.Array]:
    """Sums over one stream.

    Returns:
        Per learner |g - exact|^2, (g - exact) . exact and cosines summed over steps, (draws,); |exact|^2
        summed over steps; the number of steps where it is not 0; and the squared error of the reference.
    """
    truth_keys, *keys = (jax.random.split(k, draws) for k in jax.random.split(key, len(members) + 1))

    def start(learner, keys):
        return jax.vmap(lambda key: learner.init(key, params))(keys)

    def read(learner, state, inputs):
        t, x, credit, restart = inputs
        # A number that all draws share keeps the end of a block a choice and not two computations.
        state = at_phase(state, jnp.where(t > 0, (t - 1) % learner.block + 1, 0))
        state, _ = learner.step(params, learner.reset(state, restart), x)
        return state, flat(learner.grad(params, state, credit))

    def step(carry, inputs):
        truths, states, sums, size, count, own = carry
        pairs = [read(learner, state, inputs) for learner, state in zip(exact, truths, strict=True)]
        truths, gradients = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        truth = sum(gradients[1:], gradients[0]) / len(gradients)
        own += jnp.sum((gradients[0] - gradients[-1]) ** 2) / 4  # of a mean of two
        for name, learner in members.items():
            states[name], got = jax.vmap(lambda state, learner=learner: read(learner, state, inputs))(
                states[name]
            )
            difference = got - truth[None]
            lengths = jnp.linalg.norm(got, axis=1) * jnp.linalg.norm(truth)
            cosine = got @ truth / jnp.where(lengths > 0, lengths, 1)
            new = jnp.sum(difference**2, axis=1), difference @ truth, cosine
            sums[name] = jax.tree.map(jnp.add, sums[name], new)
        square = jnp.sum(truth**2)
        return (truths, states, sums, size + square, count + (square > 0).astype(int), own), None

    zeros = (jnp.zeros(draws),) * 3
    carry = (
        [learner.init(key, params) for learner, key in zip(exact, truth_keys, strict=False)],
        {name: start(learner, key) for (name, learner), key in zip(members.items(), keys, strict=True)},
        dict.fromkeys(members, zeros),
        jnp.zeros(()),
        jnp.zeros((), int),
        jnp.zeros(()),
    )
    (_, _, sums, size, count, own), _ = jax.lax.scan(
        step, carry, (jnp.arange(len(restarts)), xs, credits, restarts)
    )
    return sums, size, count, own


def _times(members: dict[str, Learner], params: Params, xs: Any, lanes: int) -> dict[str, float]:
    """Microseconds per step of every learner, the median of runs in turns."""

    def inputs(learner):
        first = jax.tree.map(lambda a: a[:1, :1], xs)
        return jax.tree.map(lambda a: jnp.tile(a, (learner.block, lanes) + (1,) * (a.ndim - 2)), first)

    loops = {name: learning_loop(learner, params, inputs(learner)) for name, learner in members.items()}
    return {name: spread(us)["us"] for name, us in take_turns(loops, 5).items()}


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
