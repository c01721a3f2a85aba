"""KeRNL: traces that decay at learned rates, and a learned way from unit to unit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from foretrace._checks import check_number
from foretrace._types import Cell, Learner
from foretrace.learners._catalogue._requirements import Requirement, acts_on_one
from foretrace.learners._engine import learner_of
from foretrace.learners._engine._block import Block
from foretrace.learners._engine._past import GroupedGradient, PastRule
from foretrace.learners._engine._sparse import SparsePast, SparseRule, advance_entries
from foretrace.learners._kronecker import random_signs
from foretrace.structure._linearisation import linearisation
from foretrace.structure._pattern import by_rows
from foretrace.structure._sparsity import find_sparsity
from foretrace.structure._structure import Structure


class KeRNLInfo(NamedTuple):
    """How well the kernel tells what a perturbation does, per lane.

    Attributes:
        error: |beta Omega - delta| / |delta|.
    """

    error: Float[Array, "..."]


class Moving(NamedTuple):
    """What a restart clears.

    Attributes:
        trace: of every parameter.
        delta: (S,), how far the perturbed state is from the hidden state.
        omega: (S,), what was perturbed, decayed with gamma.
        slope: (S,), d omega / d gamma.
    """

    trace: SparsePast
    delta: jax.Array
    omega: jax.Array
    slope: jax.Array


class KeRNLPast(NamedTuple):
    """influence_{k, (i, j)} ~ beta_{ki} trace_{ij}.

    Attributes:
        moving: what a restart clears.
        beta: (S, S), from unit i to unit k.
        gamma: (S,), the decay of what enters unit i.
        rates: (2,), of beta and of gamma.
        error: of the latest perturbation, see `KeRNLInfo`.
    """

    moving: Moving
    beta: jax.Array
    gamma: jax.Array
    rates: jax.Array
    error: jax.Array


def kernl(cell: Cell, *, gamma: float = 0.1, beta_rate: float = 1e-2, gamma_rate: float = 1e-3) -> Learner:
    """KeRNL: the influence of a weight as a trace at its unit, times a learned kernel from unit to unit.

    With H the state Jacobian, i the unit that a parameter j acts on, xi random signs / sqrt(S):

        trace_ij <- exp(-gamma_i) trace_ij + immediate_ij                                (1)
        gradient_ij = (credit beta)_i trace_ij                                           (2)

    The kernel beta_ki exp(-gamma_i n) stands for what a change of unit i does to unit k after n steps. It
    is learned by regression of what a perturbation xi at every step does:

        delta <- H delta + xi                                                            (3)
        Gamma <- exp(-gamma) (Gamma - Omega),  Omega <- exp(-gamma) Omega + xi           (4)
        error = beta Omega - delta                                                       (5)
        beta' = beta - beta_rate error Omega^T,
        gamma' = max(gamma - gamma_rate Gamma (beta^T error), 0)                         (6)

    beta starts as the identity. A restart clears trace, delta, Omega and Gamma of its lane; beta and gamma
    are learned, like weights, and stay.

    Exactness: biased towards one decay for every unit. For units that hear none but themselves and forget
    at a constant rate the best kernel is exact.

    Cost: memory S^2 + P per lane; time of a forward and a backward pass and S^2 per step.

    Args:
        cell: the dynamics; within a step every parameter must act on one entry of the state.
        gamma: decay per step at the start, for all units; its inverse is a number of steps.
        beta_rate: step size of beta; above 2 / |Omega|^2, about 4 gamma, it diverges. 0 keeps the identity.
        gamma_rate: step size of gamma; 0 keeps it.

    Returns:
        A learner; `info` is a `KeRNLInfo`.

    Raises:
        ValueError: `gamma` or a rate is not a number >= 0; at `init`, the cell is not of this class.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.cells.leaky(hidden=8, inputs=3)
        >>> learner = ft.contrib.kernl(cell)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))
        >>> state.past.beta.shape  # lanes, to, from
        (1, 8, 8)

    Source: Roth, Kanitscheider, Fiete, ICLR 2019. There a copy of the network runs with noise; (3) is the
    limit of small noise, which costs the same and has neither its size nor its curvature. gamma is kept
    from falling below 0, and step sizes and the start of gamma are ours.
    """
    check_number("gamma", gamma, ">= 0", "0.1 is the default")
    check_number("beta_rate", beta_rate, ">= 0", "0.01 is the default")
    check_number("gamma_rate", gamma_rate, ">= 0", "0.001 is the default")

    rates = beta_rate, gamma_rate
    return learner_of(cell, lambda structure: _KeRNLRule(structure, gamma, rates), 1)


class _KeRNLRule(PastRule[KeRNLPast]):
    """Carries traces, the kernel, and the perturbation that the kernel learns from."""

    needs_no_window = True

    def __init__(self, structure: Structure, gamma: float, rates: tuple[float, float]) -> None:
        super().__init__(structure)
        size = structure.state_size
        ACTS_ON_ONE_ENTRY.check(structure, "kernl")
        self.traces = SparseRule(structure, steps=1)
        sparsity = find_sparsity(structure)
        self.linearise = linearisation(structure, sparsity, True)
        self.gamma, self.rates, self.size = gamma, rates, size

    def empty(self) -> KeRNLPast:
        size, dtype = self.size, self.structure.dtype
        zero = jnp.zeros(size, dtype)
        return KeRNLPast(
            Moving(self.traces.empty(), zero, zero, zero),
            jnp.eye(size, dtype=dtype),
            jnp.full(size, self.gamma, dtype),
            jnp.array(self.rates, dtype),
            jnp.zeros((), dtype),
        )

    def read(self, past: KeRNLPast, credit: jax.Array) -> GroupedGradient:
        """Equation (2)."""
        return self.traces.read(past.moving.trace, credit @ past.beta)

    def push(self, key: jax.Array, past: KeRNLPast, block: Block) -> tuple[KeRNLPast, KeRNLInfo]:
        """Equations (1), (3) to (6)."""
        structure, size, dtype = self.structure, self.size, self.structure.dtype
        xi = random_signs(key, size, dtype) / jnp.sqrt(jnp.asarray(size, dtype))
        decay = jnp.exp(-past.gamma)
        diagonal = by_rows(decay[None], np.eye(size, dtype=bool), np.zeros(size, int))

        def step(moving, params, residuals, jacobians, each):
            trace, delta, omega, slope = moving
            _, immediate = self.linearise(params, residuals, jacobians)
            parts = advance_entries(
                structure, self.traces.sets, trace.parts, residuals, diagonal, immediate
            )  # (1)
            delta = structure.pushforward(params, residuals, delta) + xi  # (3)
            slope, omega = decay * (slope - omega), decay * omega + xi  # (4)
            return Moving(SparsePast(parts), delta, omega, slope), None

        moving, _ = block.fold(step, past.moving)
        error = past.beta @ moving.omega - moving.delta  # (5)
        beta = past.beta - past.rates[0] * jnp.outer(error, moving.omega)  # (6)
        new = jnp.maximum(past.gamma - past.rates[1] * moving.slope * (error @ past.beta), 0)
        scale = jnp.linalg.norm(moving.delta)
        relative = jnp.linalg.norm(error) / jnp.where(scale > 0, scale, 1)
        past = KeRNLPast(moving, beta, new, past.rates, relative)
        return past, self.info(past)

    def info(self, past: KeRNLPast) -> KeRNLInfo:
        return KeRNLInfo(past.error)


# Every entry of the state is a unit of its own, whatever connects them.
ACTS_ON_ONE_ENTRY = Requirement(
    "parameters act on one entry each",
    lambda structure: acts_on_one(structure, np.eye(structure.state_size, dtype=bool)),
)
