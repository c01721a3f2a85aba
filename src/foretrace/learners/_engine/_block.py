"""A full block of steps of one lane as one transition: its tangent, cotangent and matrix forms."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from foretrace._types import Params
from foretrace._xla import is_spread
from foretrace.learners._engine._past import GroupedGradient, Terms
from foretrace.learners._engine._right_factors import DenseRight, RightFactors, SparseRight
from foretrace.structure._jacobian_rule import JacobianRule
from foretrace.structure._structure import Structure


class Block:
    """The steps of a full window of one lane, oldest first.

    Attributes:
        structure: of the cell.
        length: number of steps, k.
        past_survives: bool, whether anything from before the block still matters at its end.
        ends_empty: bool, whether the lane begins anew right after the block, so that nothing of it matters.
    """

    def __init__(
        self,
        structure: Structure,
        jacobians: JacobianRule,
        params: Params,
        step_weights: tuple[jax.Array, ...],
        matrices: Any,
        window: tuple[jax.Array, ...],
        restarts: jax.Array,
    ) -> None:
        """Reads a window.

        Args:
            structure: of the cell.
            jacobians: its rule for Jacobians as matrices.
            params: parameters for all that does not change inside the block.
            step_weights: weights that each step multiplied by, leaves (k, ..); none if they were `params`.
            matrices: `jacobians.weights` of the step weights, leaves (k, ..), or of `params` without them.
            window: residuals of the steps, leaves (k, ..).
            restarts: (k + 1,) bool, whether the lane began anew just before each step, and after the last.
        """
        self.structure, self._jacobians = structure, jacobians
        self._params, self._restarts = params, restarts
        self._matrices = matrices
        self._steps = window, step_weights
        self.length = restarts.shape[0] - 1
        # The flag after the last step counts for both: what ends there reaches no step to come.
        self.past_survives = ~jnp.any(restarts)
        self.ends_empty = restarts[-1]

    def _at(self, step: tuple) -> tuple[Params, tuple]:
        """Parameters and residuals of one element of `self._steps`."""
        residuals, weights = step
        return self.structure.with_weights(self._params, weights), residuals

    def pushforward(self, tangent: jax.Array, preacts: Any = None, dense: Any = None) -> jax.Array:
        """Tangent (S,) at the block's start -> at its end, of fixed parameters unless tangents are given.

        Args:
            tangent: at the block's start.
            preacts: per group the tangent (k, Z) of z that enters at every step.
            dense: per dense leaf the tangent (k, ..) that enters at every step.
        """

        def step(tangent, inputs):
            restart, (params, residuals), (preacts, dense) = inputs[0], self._at(inputs[1]), inputs[2]
            tangent = jnp.where(restart, 0, tangent)
            return self.structure.pushforward(params, residuals, tangent, preacts, dense), None

        steps = self._restarts[:-1], self._steps, (preacts, dense)
        moved, _ = jax.lax.scan(step, tangent, steps, length=self.length)
        return jnp.where(self.ends_empty, 0, moved)

    def pullback(self, credit: jax.Array) -> tuple[jax.Array, GroupedGradient]:
        """Credit (S,) at the block's end -> at its start, and the gradient that its steps add."""

        def step(credit, inputs):
            restart, (params, residuals) = inputs[0], self._at(inputs[1])
            credit, preacts, dense = self.structure.pullback(params, residuals, credit)
            return jnp.where(restart, 0, credit), (preacts, dense)

        credit = jnp.where(self.ends_empty, 0, credit)
        steps = self._restarts[:-1], self._steps
        credit, (preacts, dense) = jax.lax.scan(step, credit, steps, reverse=True)
        groups = tuple(Terms(*pair) for pair in zip(self.factors(), preacts, strict=True))
        return credit, GroupedGradient(groups, tuple(jnp.sum(leaf, axis=0) for leaf in dense))

    def fold(self, step: Callable[..., tuple[Any, Any]], past: Any, each: Any = None) -> tuple[Any, Any]:
        """Takes a past through the block's steps one by one; it is zero where a lane begins anew.

        Args:
            step: `(past, params, residuals, jacobians, each) -> (past, out)`.
            past: at the block's start, a pytree of arrays.
            each: something more for every step, leaves (k, ..).

        Returns:
            The past at the block's end, and the outputs of all steps, leaves (k, ..).
        """

        def one(past, inputs):
            restart, (params, residuals), each = inputs[0], self._at(inputs[1]), inputs[2]
            past = jax.tree.map(lambda a: jnp.where(restart, 0, a), past)
            return step(past, params, residuals, self._jacobians, each)

        steps = self._restarts[:-1], self._steps, each
        if self.length == 1:  # without a loop, whose body XLA could not join with what surrounds it
            past, out = one(past, jax.tree.map(lambda a: a[0], steps))
            out = jax.tree.map(lambda a: a[None], out)
        else:
            past, out = jax.lax.scan(one, past, steps)
        return jax.tree.map(lambda a: jnp.where(self.ends_empty, 0, a), past), out

    def factors(self) -> tuple[jax.Array, ...]:
        """Input factors of every group, (k, F)."""
        return jax.vmap(self.structure.factors, axis_size=self.length)(self._steps[0])

    def matrices(
        self, after: jax.Array | None = None
    ) -> tuple[jax.Array, tuple[RightFactors, ...], tuple[jax.Array, ...]]:
        """The state Jacobian of the block, and the influence that its steps add at its end.

        Args:
            after: a Jacobian (S, S) that carries all of it on from there, to the end of a later block.

        Returns:
            Q_0 (S, S), with Q_i the product of the state Jacobians after step i; per group the right
            factors Q_i D_i of every step; per dense leaf sum_i Q_i I_i, (S, size).
        """
        if self.length == 1 and after is None:
            return self._single_step()
        return self._suffix_products(after)

    def _single_step(self):
        """`matrices` of a block of one step, where Q_1 is the identity and needs no product."""
        rule, step_weights = self._jacobians, self._steps[1]
        first = jax.tree.map(lambda a: a[0], self._steps)
        matrices = jax.tree.map(lambda a: a[0], self._matrices) if step_weights else self._matrices
        values = rule.values(*self._at(first))
        step = rule.step(matrices, values, None, self._restarts[0])
        jacobian, slopes, dense = jax.tree.map(lambda a: jnp.where(self.ends_empty, 0, a), step)
        entries = rule.entries(slopes)
        # Nothing has multiplied D yet, so that it is as sparse as the cell makes it.
        # Their places are those of one device.
        if entries is None or is_spread():
            return jacobian, tuple(DenseRight(right[None]) for right in rule.rights(slopes, None)), dense
        shapes = ((self.structure.state_size, group.preact_size) for group in self.structure.groups)
        pairs = zip(entries, shapes, strict=True)
        return jacobian, tuple(SparseRight(*each, shape) for each, shape in pairs), dense

    def _suffix_products(self, after: jax.Array | None):
        """`matrices` of a longer block, in a loop from its last step to its first."""
        rule = self._jacobians
        each, common = (self._matrices, None) if self._steps[1] else (None, self._matrices)
        # For all steps at once: inside the loop the compiler would compute each entry of them anew.
        values = jax.vmap(lambda step: rule.values(*self._at(step)), axis_size=self.length)(self._steps)

        def step(carry, inputs):
            (suffix, total), (restart, values, matrices) = carry, inputs
            matrices = common if matrices is None else matrices
            before, slopes, dense = rule.step(matrices, values, suffix, restart)
            total = tuple(a + b for a, b in zip(total, dense, strict=True))
            return (before, total), (slopes, suffix)

        size, dtype = self.structure.state_size, self.structure.dtype
        zeros = tuple(jnp.zeros((size, d.size), dtype) for d in self.structure.dense)
        last = jnp.eye(size, dtype=dtype) if after is None else after
        start = jnp.where(self.ends_empty, 0, last), zeros
        steps = self._restarts[:-1], values, each
        (suffix, dense), (slopes, suffixes) = jax.lax.scan(step, start, steps, reverse=True)
        # After the loop, for all steps at once: the loop carries S x S numbers, these have S x Z each.
        rights = jax.vmap(rule.rights)(slopes, suffixes)
        return suffix, tuple(DenseRight(right) for right in rights), dense


class AgedBlock:
    """Two blocks in a row: the steps of the first as they are seen from the end of the second.

    To a method it is a `Block` whose terms have aged: the past stands at the start of the newer block, the
    steps that join it are those of the older one, and both are carried to the end of the newer one.

    Attributes:
        structure: of the cell.
        length: number of steps that join the past, k.
        past_survives: bool, whether anything from before the newer block still matters at its end.
        ends_empty: bool, whether the lane begins anew right after it.
    """

    def __init__(self, older: Block, newer: Block) -> None:
        self.structure, self.length = older.structure, older.length
        self.past_survives, self.ends_empty = newer.past_survives, newer.ends_empty
        self._older, self._newer = older, newer

    def pushforward(self, tangent: jax.Array) -> jax.Array:
        """Tangent (S,) at the start of the newer block -> at its end, parameters fixed."""
        return self._newer.pushforward(tangent)

    def inject(self, preacts: Any, dense: Any) -> jax.Array:
        """Tangents of z, (k, Z), and of dense leaves, (k, ..), in the older block -> at its end (S,)."""
        start = jnp.zeros(self.structure.state_size, self.structure.dtype)
        return self._older.pushforward(start, preacts, dense)

    def pullback(self, credit: jax.Array) -> tuple[jax.Array, GroupedGradient]:
        """Credit (S,) at the end -> at the start of the newer block, and what the older steps add."""
        credit, _ = self._newer.pullback(credit)
        return credit, self._older.pullback(credit)[1]

    def factors(self) -> tuple[jax.Array, ...]:
        """Input factors of every group, (k, F)."""
        return self._older.factors()

    def matrices(self) -> tuple[jax.Array, tuple[RightFactors, ...], tuple[jax.Array, ...]]:
        """See `Block.matrices`."""
        jacobian = self._newer.matrices()[0]
        _, rights, dense = self._older.matrices(jacobian)
        return jacobian, rights, dense


# What joins a past: the steps of one block, seen from its end or from that of the next.
Steps = Block | AgedBlock
