"""The noise of learners on any network and any stream, beside their price: how a user chooses one."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._checks import check_positive_int
from foretrace._types import Cell, Learner, Params
from foretrace.experiments._compare import compare
from foretrace.experiments._noise_table import Noise, NoiseTable
from foretrace.experiments._timing import learning_loop, spread, take_turns
from foretrace.learners import Choice, Explanation, analyse, parse

# From cheap to quiet; a longer block is cheaper for OK and dearer for low_rank.
_AUTO = (
    *(f"low_rank:{rank}/{block}" for block in (8, 16, 32) for rank in (2, 4, 8)),
    *(f"ok:{rank}/{block}+1" for block in (8, 16) for rank in (4, 8)),
)


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
        names: learners, such as "low_rank:4" or "ok:8/16+1"; the block is the fastest unless given. "auto"
            stands for those of little noise that fit the cell, in several ranks and blocks.
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
    every = [one for name in names for one in (_sweep(explanation) if name == "auto" else (name,))]
    choices = [_with_block(explanation, name, lanes) for name in dict.fromkeys(every)]
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


def _sweep(explanation: Explanation) -> list[str]:
    """What "auto" stands for."""
    structure = explanation.structure
    fitting = [
        name
        for name in _AUTO
        if not parse(name).spec.requires.refusal(structure) and parse(name).number <= structure.state_size
    ]
    return fitting or ["rtrl"]  # a state smaller than every rank


def _with_block(explanation: Explanation, name: str, lanes: int) -> Choice:
    """The learner of that name, with the fastest block where it names none."""
    choice = parse(name)
    if choice.block is None and choice.spec.takes_block:
        choice = choice._replace(block=explanation.best_block(choice, lanes=lanes))
    return choice


def _times(members: dict[str, Learner], params: Params, xs: Any, lanes: int) -> dict[str, float]:
    """Microseconds per step of every learner, the median of runs in turns."""

    def inputs(learner):
        first = jax.tree.map(lambda a: a[:1, :1], xs)
        return jax.tree.map(lambda a: jnp.tile(a, (learner.block, lanes) + (1,) * (a.ndim - 2)), first)

    loops = {name: learning_loop(learner, params, inputs(learner)) for name, learner in members.items()}
    return {name: spread(us)["us"] for name, us in take_turns(loops, 5).items()}


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
