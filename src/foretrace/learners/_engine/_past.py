"""What a method has to say about the past, and the block of steps that joins it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace._types import Info, Params
from foretrace.learners._engine._right_factors import Placed, Rights, Whole
from foretrace.structure._jacobians import JacobianRule
from foretrace.structure._structure import Structure


class Sensitivity(NamedTuple):
    """A gradient, in parts: per group a (F, Z) matrix or a sum of `Terms`, per dense leaf an array."""

    groups: tuple[Any, ...]
    dense: tuple[jax.Array, ...]


class Terms(NamedTuple):
    """The matrix left^T @ right: left (R, F), right (R, Z)."""

    left: jax.Array
    right: jax.Array


class Past(NamedTuple):
    """How a method represents the influence of everything before the block; for one lane.

    Attributes:
        empty: `() -> past`, of a lane without a past.
        read: `(past, credit (S,)) -> Sensitivity`.
        push: `(key, past, block) -> (past, info)`, the past at the end of a `Block`.
        draws: whether `push` uses its key; to make keys for nothing costs small networks a tenth of a step.
        at_once: whether, at block 1, every step is pushed as it is taken and read from the past alone: for
            a past that says all there is to say of the present step.
        own_weights: whether a step leaves its weights at block 1 too, as it does in longer blocks.
    """

    empty: Callable[[], Any]
    read: Callable[[Any, jax.Array], Sensitivity]
    push: Callable[[jax.Array, Any, "Block"], tuple[Any, Info]]
    draws: bool = True
    at_once: bool = False
    own_weights: bool = False


class Block:
    """A full window of one lane as one transition: its tangent, cotangent and matrix forms."""

    def __init__(
        self,
        structure: Structure,
        transport: JacobianRule,
        params: Params,
        weights: tuple,
        matrices: Any,
        window: tuple,
        cuts: jax.Array,
    ):
        self.structure, self._transport = structure, transport
        self._params, self._cuts = params, cuts
        self._matrices = matrices  # what `transport.weights` makes of the weights
        self._steps = window, weights
        self.length = cuts.shape[0] - 1
        self.alive = ~jnp.any(cuts)  # whether anything from before the block still matters
        self.over = cuts[-1]  # whether nothing up to its end does

    def _at(self, step: tuple) -> tuple[Params, tuple]:
        """The parameters and residuals of one of `self._steps`."""
        residuals, weights = step
        return self.structure.with_weights(self._params, weights), residuals

    def pushforward(self, tangent: jax.Array) -> jax.Array:
        """Tangent (S,) at the block's start -> at its end, parameters fixed."""

        def step(tangent, inputs):
            params, residuals = self._at(inputs)
            return self.structure.pushforward(params, residuals, tangent), None

        return jnp.where(self.alive, jax.lax.scan(step, tangent, self._steps, length=self.length)[0], 0)

    def pullback(self, credit: jax.Array) -> tuple[jax.Array, Sensitivity]:
        """Credit (S,) at the block's end -> at its start, and what its steps add to the gradient."""

        def step(credit, inputs):
            cut, (params, residuals) = inputs[0], self._at(inputs[1])
            credit, preacts, dense = self.structure.pullback(params, residuals, credit)
            return jnp.where(cut, 0, credit), (preacts, dense)

        credit = jnp.where(self.over, 0, credit)
        steps = self._cuts[:-1], self._steps
        credit, (preacts, dense) = jax.lax.scan(step, credit, steps, reverse=True)
        groups = tuple(Terms(*pair) for pair in zip(self.factors(), preacts, strict=True))
        return credit, Sensitivity(groups, tuple(jnp.sum(leaf, axis=0) for leaf in dense))

    def fold(self, step: Callable[..., tuple[Any, Any]], past: Any, each: Any = None) -> tuple[Any, Any]:
        """Takes a past through the block's steps one by one; it is zero where a lane begins anew.

        Args:
            step: `(past, params, residuals, transport, each) -> (past, out)`.
            past: at the block's start, a pytree of arrays.
            each: something more for every step, leaves (length, ..).

        Returns:
            The past at the block's end, and what came out of every step, leaves (length, ..).
        """

        def one(past, inputs):
            cut, (params, residuals), each = inputs[0], self._at(inputs[1]), inputs[2]
            past = jax.tree.map(lambda a: jnp.where(cut, 0, a), past)
            return step(past, params, residuals, self._transport, each)

        steps = self._cuts[:-1], self._steps, each
        if self.length == 1:
            past, out = one(past, jax.tree.map(lambda a: a[0], steps))
            out = jax.tree.map(lambda a: a[None], out)
        else:
            past, out = jax.lax.scan(one, past, steps)
        return jax.tree.map(lambda a: jnp.where(self.over, 0, a), past), out

    def factors(self) -> tuple[jax.Array, ...]:
        """The input factors of every group, (length, F)."""
        return jax.vmap(self.structure.factors, axis_size=self.length)(self._steps[0])

    def matrices(self) -> tuple[jax.Array, tuple[Rights, ...], tuple[jax.Array, ...]]:
        """The state Jacobian of the block and what its steps add to the influence at its end.

        Returns:
            Q_0 (S, S), with Q_i the product of the state Jacobians after step i; per group the right
            factors Q_i D_i of every step; per dense leaf sum_i Q_i I_i, (S, size).
        """
        way, remembers = self._transport, bool(self._steps[1])
        own, shared = (self._matrices, None) if remembers else (None, self._matrices)
        if self.length == 1:  # the identity needs no product
            first, own = jax.tree.map(lambda a: a[0], (self._steps, own))
            values = way.values(*self._at(first))
            found = way.step(own if remembers else shared, values, None, self._cuts[0])
            suffix, slopes, dense = jax.tree.map(lambda a: jnp.where(self.over, 0, a), found)
            entries = way.entries(slopes)
            if entries is None:
                return suffix, tuple(Whole(right[None]) for right in way.rights(slopes, None)), dense
            shapes = ((self.structure.state_size, group.preact_size) for group in self.structure.groups)
            pairs = zip(entries, shapes, strict=True)
            return suffix, tuple(Placed(*each, shape) for each, shape in pairs), dense

        # Made for all steps at once: in the loop the compiler would make them anew for every entry.
        values = jax.vmap(lambda step: way.values(*self._at(step)), axis_size=self.length)(self._steps)

        def step(carry, inputs):
            (suffix, total), (cut, values, own) = carry, inputs
            before, slopes, dense = way.step(own if remembers else shared, values, suffix, cut)
            total = tuple(a + b for a, b in zip(total, dense, strict=True))
            return (before, total), (slopes, suffix)

        size, dtype = self.structure.state_size, self.structure.dtype
        zeros = tuple(jnp.zeros((size, d.size), dtype) for d in self.structure.dense)
        start = jnp.where(self.over, 0, jnp.eye(size, dtype=dtype)), zeros
        steps = self._cuts[:-1], values, own
        (suffix, dense), (slopes, suffixes) = jax.lax.scan(step, start, steps, reverse=True)
        rights = jax.vmap(way.rights)(slopes, suffixes)
        return suffix, tuple(Whole(right) for right in rights), dense


def norm(tree: Any) -> jax.Array:
    """Euclidean norm of a pytree; of `Terms`, that of the matrix, which is never formed."""
    parts = jax.tree.leaves(tree, is_leaf=lambda part: isinstance(part, Terms))
    if not parts:
        return jnp.asarray(0.0)
    return jnp.sqrt(jnp.sum(jnp.stack([_square(part) for part in parts])))


def _square(part) -> jax.Array:
    if isinstance(part, Terms):
        square = jnp.sum((part.left @ part.left.T) * (part.right @ part.right.T))
        return jnp.maximum(square, 0)  # rounding may leave a zero below zero
    return jnp.sum(part**2)


def nothing(structure: Structure) -> Sensitivity:
    """A gradient of zeros."""
    groups = tuple(jnp.zeros((g.factor_size, g.preact_size), structure.dtype) for g in structure.groups)
    return Sensitivity(groups, no_dense(structure))


def no_dense(structure: Structure) -> tuple[jax.Array, ...]:
    """A zero for every dense leaf."""
    return tuple(jnp.zeros(structure.leaves[d.leaf].shape, structure.dtype) for d in structure.dense)


def empty_dense(structure: Structure) -> tuple[jax.Array, ...]:
    """The exact influence (S, size) of every dense leaf, without a past."""
    return tuple(jnp.zeros((structure.state_size, d.size), structure.dtype) for d in structure.dense)


def read_dense(
    structure: Structure, dense: tuple[jax.Array, ...], credit: jax.Array
) -> tuple[jax.Array, ...]:
    """Gradients of the dense leaves from their exact influence."""
    return tuple(
        (credit @ influence).reshape(zero.shape)
        for influence, zero in zip(dense, no_dense(structure), strict=True)
    )
