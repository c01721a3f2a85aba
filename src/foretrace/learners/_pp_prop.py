"""pp-prop, traces before and after the weights: memory that grows with the units, not with the weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._checks import check_positive_int
from foretrace._types import Cell, Learner
from foretrace.learners._catalogue._requirements import UNITS_APART
from foretrace.learners._catalogue._spec import CellSizes, Number, Operations, Spec
from foretrace.learners._engine import learner_of
from foretrace.learners._engine._block import Block
from foretrace.learners._engine._past import GroupedGradient, NoInfo, PastRule, Terms
from foretrace.learners._engine._sparse import arriving, matrices_of_sets, product_of_sets, scatter_columns
from foretrace.structure._linearisation import linearisation
from foretrace.structure._sparsity import find_sparsity, sets_within
from foretrace.structure._structure import Structure


class PpPropTraces(NamedTuple):
    """What a restart empties.

    Attributes:
        before: per group (F,), presynaptic traces.
        after: per group and dense leaf (K, C, 1, G), postsynaptic traces, sets as in `SparsePast`.
        weight: 1 - a^t after t steps.
    """

    before: tuple[jax.Array, ...]
    after: tuple[jax.Array, ...]
    weight: jax.Array


class PpPropPast(NamedTuple):
    """The traces, and the decay a."""

    traces: PpPropTraces
    decay: jax.Array


def pp_prop(cell: Cell, *, span: int) -> Learner:
    """pp-prop (ES-D-RTRL): the traces of e-prop as the product of a presynaptic and a postsynaptic one.

    With own the part of the state Jacobian that passes no weight, a small matrix for every unit, f and D
    the input factor and the preact Jacobian, and a = (span - 1) / (span + 1):

        before <- a before + f                                                           (1)
        after <- a own after + (1 - a) D                                                 (2)
        gradient = before (x) (credit . after) / (1 - a^t)                               (3)

    after t steps of a stream; its denominator makes up for traces that start at zero. What multiplies no
    vector, such as a bias or a gain, has a postsynaptic trace alone: f is 1 in (3).

    Exactness: biased. Traces of inputs and of units are smoothed apart, so that a gradient pairs what an
    input was at one time with what a unit was at another. With a span of 1 it is `immediate`.

    Cost: memory F + K Z per lane, with K numbers per unit; time of a forward and a backward pass.

    Args:
        cell: the dynamics; within a step every parameter must act on one unit.
        span: steps of the exponential average that each trace is.

    Returns:
        A learner; `info` is empty.

    Raises:
        TypeError, ValueError: `span` is not an int >= 1; at `init`, the cell is not of this class.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.leaky(hidden=8, inputs=3)
        >>> learner = ft.pp_prop(cell, span=19)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))
        >>> [trace.shape for trace in state.past.traces.before]  # lanes, weights of a unit
        [(1, 12)]

    Source: Wang, Dong, Ji, Xiao, Jiang, Liu, Huan, Wu, Nature Communications, 2026, doi
    10.1038/s41467-026-68453-w, as ES-D-RTRL in the preprint, bioRxiv 2024.09.24.614728; the denominator of
    (3), (1) without 1 - a, biases without a trace of their input, and a from a number of steps (there
    `decay_or_rank`) are those of their library, BrainTrace. There the denominator is set to 1 from step
    1,000 on, which is the same up to rounding for spans below 100, and D comes from a single tangent of
    ones, which is exact where z acts elementwise; here both are exact at every step and for every cell.
    """
    check_positive_int("span", span, "1 is immediate(cell), 19 a decay of 0.9")

    return learner_of(cell, lambda structure: _PpPropRule(structure, span), 1)


class _PpPropRule(PastRule[PpPropPast]):
    """Carries the traces of inputs and of units."""

    is_random = False
    needs_no_window = True

    def __init__(self, structure: Structure, span: int) -> None:
        super().__init__(structure)
        UNITS_APART.check(structure, "pp_prop")
        sparsity = find_sparsity(structure)
        sets = sets_within(structure, sparsity, None, without_weights=True)
        self.sets = [part._replace(width=1) for part in sets]  # of a unit, whatever its weights
        self.linearise = linearisation(structure, sparsity, without_weights=True)
        self.decay = (span - 1) / (span + 1)
        # Which entries of every input factor are always one.
        self.constant = [
            np.concatenate([np.full(member.rows, member.factor is None) for member in group.members])
            for group in structure.groups
        ]

    def empty(self) -> PpPropPast:
        dtype = self.structure.dtype
        traces = PpPropTraces(
            tuple(jnp.zeros(group.factor_size, dtype) for group in self.structure.groups),
            tuple(jnp.zeros(part.shape, dtype) for part in self.sets),
            jnp.zeros((), dtype),
        )
        return PpPropPast(traces, jnp.full((), self.decay, dtype))

    def read(self, past: PpPropPast, credit: jax.Array) -> GroupedGradient:
        """Equation (3)."""
        before, after, weight = past.traces
        credit = credit / jnp.where(weight > 0, weight, 1)  # before the first step all is zero
        columns = [arriving(*pair, credit) for pair in zip(self.sets, after, strict=True)]
        units, dense = scatter_columns(self.structure, self.sets, columns)
        groups = (Terms(f[None], unit) for f, unit in zip(before, units, strict=True))
        return GroupedGradient(tuple(groups), dense)

    def push(self, key: jax.Array, past: PpPropPast, block: Block) -> tuple[PpPropPast, NoInfo]:
        """Equations (1) and (2)."""
        a = past.decay

        def step(traces, params, residuals, jacobians, each):
            factors = self.structure.factors(residuals)
            before = tuple(
                jnp.where(constant, f, a * old + f)  # (1)
                for constant, old, f in zip(self.constant, traces.before, factors, strict=True)
            )
            state, immediate = self.linearise(params, residuals, jacobians)
            after = []
            for part, old, jacobian in zip(self.sets, traces.after, immediate, strict=True):
                own, new = matrices_of_sets(part, state, jacobian)
                after.append(a * product_of_sets(own, old) + (1 - a) * new[:, :, None])  # (2)
            weight = a * traces.weight + (1 - a)
            return PpPropTraces(before, tuple(after), weight), None

        traces, _ = block.fold(step, past.traces)
        return PpPropPast(traces, a), NoInfo()


def _operations(sizes: CellSizes, span: int, block: int) -> Operations:
    sets = [part._replace(width=1) for part in sizes.column_sets(None, without_weights=True)]
    influence = sizes.sparse_influence(sets, without_weights=True)
    return sizes.window(block) | influence | {"read": 2 * sizes.weights}


SPEC = Spec(
    factory=pp_prop,
    call="pp_prop(cell, span=N)",
    influence="a trace per input and per unit",
    exact=False,
    unbiased=False,
    memory="F + K Z",
    time="P",
    requires=UNITS_APART,
    source="Wang et al. 2026",
    papers=("wang2026model",),
    operations=_operations,
    order=9,
    number=Number("span", 19, recommended=(19,)),
    takes_block=False,
)
