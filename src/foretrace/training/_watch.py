"""Chunks that are checked: all numbers are finite, and the influence does not explode."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from foretrace._checks import UserError
from foretrace._xla import with_new_keys
from foretrace.training._guard import NEVER, TENSORS, NonFinite, all_finite, floats
from foretrace.training._loop import Carry, Metrics, Trainer

_LARGE = 1e6


class NonFiniteError(UserError, ArithmeticError):
    """Training met a number that is not finite."""

    exit_code = 1


class InfluenceWarning(UserWarning):
    """The influence grows, and will overflow if it goes on."""


class CheckedChunk:
    """Runs chunks of a trainer, and those that do not stay finite a second time, guarded.

    The carry is not donated: where a chunk fails, the one before it is what to go on from.
    """

    def __init__(
        self,
        trainer: Trainer,
        guarded: Callable[[Carry], tuple[Carry, Metrics, NonFinite]],
        *,
        skip: bool,
    ):
        """Takes the chunk and its guarded form (see `guarded`).

        Args:
            trainer: gives the chunk that runs as long as all is finite.
            guarded: the same chunk, guarded.
            skip: whether to go on without what is not finite; if not, it is only named.
        """

        def plain(carry):
            carry, metrics = trainer.chunk(carry)
            fine, largest = _health(carry, (metrics.loss, metrics.gradient_norm))
            return carry, metrics, fine, largest, None

        def watched(carry):
            carry, metrics, nonfinite = guarded(carry)
            fine, largest = _health(carry, ())
            return carry, metrics, fine, largest, nonfinite

        self._plain: Any = jax.jit(plain)
        self._guarded, self._skip, self._limit = jax.jit(watched), skip, _LARGE

    def compile(self, carry: Carry) -> None:
        """Compiles the chunk, so that it does not count as time of training."""
        self._plain = self._plain.lower(with_new_keys(carry)).compile()

    def __call__(self, carry: Carry, first: int, last: dict[str, Any]) -> tuple[Carry, Metrics, dict]:
        """Runs one chunk.

        Args:
            carry: what to go on from; stays as it is.
            first: time steps before this chunk.
            last: the record of the chunk before.

        Returns:
            The carry, the metrics, and for the record `influence`, the largest magnitude in the learner's
            state, and if samples are skipped how many were, `skipped`.

        Raises:
            NonFiniteError: something is not finite and not to be skipped, or cannot be.
        """
        # After a chunk with something to skip another one is expected, and not tried plainly first. That is
        # decided by the record, so that a run that was resumed decides alike.
        new, metrics, fine, largest, nonfinite = (self._guarded if last.get("skipped") else self._plain)(
            with_new_keys(carry)
        )
        if not fine and nonfinite is None:
            new, metrics, fine, largest, nonfinite = self._guarded(with_new_keys(carry))
            fine = fine and self._skip
        if not fine:
            raise NonFiniteError(_complaint(carry, nonfinite, first))
        self._warn(float(largest), first)
        checks: dict[str, Any] = {"influence": float(largest)}
        if self._skip:
            checks["skipped"] = int(nonfinite.skipped) if nonfinite else 0
        return new, jax.device_get(metrics), checks

    def _warn(self, largest: float, first: int) -> None:
        if largest > self._limit:
            self._limit = 1e3 * largest
            warnings.warn(
                f"the influence explodes: its largest number is {largest:.1e} after the chunk that began "
                f"at step {first:,}, 3e38 is the end. The norm of the state Jacobian was above one "
                f"for long; a lower learning rate or a stronger clip may help",
                InfluenceWarning,
                stacklevel=3,
            )


def _health(carry: Carry, shown: Any) -> tuple[Any, Any]:
    """Whether all is finite, and the largest magnitude in the learner's state."""
    sizes = [jnp.max(jnp.abs(leaf), initial=0) for leaf in floats(carry.streams.learner)]
    fine = all_finite((carry.params, carry.optimizer, shown, sizes))
    return fine, jnp.max(jnp.stack([size.astype(jnp.float32) for size in sizes]))


def _complaint(carry: Carry, nonfinite: NonFinite, first: int) -> str:
    """Names the first tensor and the first step."""
    name, step = "parameters", first
    if all_finite(carry.params):
        order = np.asarray(nonfinite.first)
        name = TENSORS[int(np.argmin(order))] if order.min() < NEVER else "loss or gradient"
        step += int(order.min()) if order.min() < NEVER else 1
    return (
        f"{name} must be finite; got a number that is not at step {step:,}; go on from before it and skip "
        f"what is not finite, or begin anew with a lower learning rate or a stronger clip."
    )
