"""Step rules: how far the parameters go along a trace, given the error."""

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from foretrace._checks import check_number

_EPSILON = 1e-8


class StepRule(NamedTuple):
    """From error and trace to a change of the parameters.

    Attributes:
        init: `(params) -> state`.
        update: `(gradient, trace, error, state) -> (change, state)`; the trace has the gradient already.
    """

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any, Any], tuple[Any, Any]]


class Moments(NamedTuple):
    """Second moments, one per parameter, and the number of steps."""

    second: Any
    steps: jax.Array


class IntendedState(NamedTuple):
    """Moments of the gradient; moving averages of its scaled size, of the squared and absolute error."""

    moments: Moments
    size: jax.Array
    squared: jax.Array
    absolute: jax.Array


def obgd(rate: float = 1.0, kappa: float = 2.0) -> StepRule:
    """Overshooting-bounded gradient descent (ObGD): no step may overshoot, as far as the trace can tell.

        M = max(|error|, 1) |trace|_1 rate kappa                                        (1)
        change = rate / max(1, M) error trace                                           (2)

    Args:
        rate: the step size while M <= 1, alpha.
        kappa: the bound's factor, above 1; larger is more careful.

    Raises:
        TypeError, ValueError: a number is not > 0.

    Source:
        Elsayed, Vasan, Mahmood, Streaming deep reinforcement learning finally works, 2024.
    """
    _check(rate=rate, kappa=kappa)

    def update(gradient, trace, error, state):
        return _bounded(trace, error, rate, kappa), state

    return StepRule(lambda params: (), update)


def adaptive_obgd(rate: float = 1.0, kappa: float = 2.0, decay: float = 0.999) -> StepRule:
    """ObGD along a trace that is scaled by the size of its own steps.

        v <- decay v + (1 - decay) (error trace)^2                                      (1)
        change as in `obgd`, with trace / sqrt(v / (1 - decay^t) + 1e-8)                  (2)

    Args:
        rate: as in `obgd`.
        kappa: as in `obgd`.
        decay: of v.

    Raises:
        TypeError, ValueError: a number is not > 0.

    Source:
        Elsayed, Vasan, Mahmood, 2024, appendix.
    """
    _check(rate=rate, kappa=kappa, decay=decay)

    def update(gradient, trace, error, state):
        moments = _observe(state, jax.tree.map(lambda z: error * z, trace), decay)  # (1)
        scaled = jax.tree.map(lambda z, v: z / jnp.sqrt(v + _EPSILON), trace, _corrected(moments, decay))
        return _bounded(scaled, error, rate, kappa), moments

    return StepRule(_no_moments, update)


def intentional(
    rate: float = 0.5, *, fading: float, scale_error: bool = False, decay: float = 0.999
) -> StepRule:
    """Intentional steps: the step is what moves the output by a set part of the error.

    With g the gradient and z the trace, per parameter, and sums over all parameters:

        v <- decay v + (1 - decay) g^2;  m = sqrt(v / (1 - decay^t)) + 1e-8                (1)
        sigma <- sigma + (1 - fading) (sum g^2 / m - sigma)                               (2)
        step = rate / max(sqrt(sigma' sum z^2 / m), 1e-8),  sigma' = sigma / (1 - fading^t) (3)
        change = step error z / m                                                        (4)

    with the error clipped at 20 times the root of its mean square, a moving average from 1 at rate .9998.

    Args:
        rate: the part of the error that a step should remove, eta; .5 for values, .05 for a policy.
        fading: discount times lambda, by which the trace fades.
        scale_error: whether the error is also divided by the moving average of its magnitude, as for a
            policy.
        decay: of v.

    Raises:
        TypeError, ValueError: a number is out of range.

    Source:
        Sharifnassab et al., Intentional updates, arXiv 2604.19033, 2026. The average of the magnitude
        is corrected for its start.
    """
    _check(rate=rate, decay=decay)
    check_number("fading", fading, ">= 0", "give discount times lambda")
    slow = 0.9998

    def init(params):
        moments = _no_moments(params)
        zero = jnp.zeros((), _dtype(params))
        return IntendedState(moments, zero, jnp.ones_like(zero), zero)

    def update(gradient, trace, error, state):
        moments = _observe(state.moments, gradient, decay)  # (1)
        scale = jax.tree.map(lambda v: jnp.sqrt(v) + _EPSILON, _corrected(moments, decay))
        size = state.size + (1 - fading) * (_weighted(gradient, scale) - state.size)  # (2)
        count = moments.steps.astype(size.dtype)
        squared = slow * state.squared + (1 - slow) * error**2
        absolute = slow * state.absolute + (1 - slow) * jnp.abs(error)
        bound = 20 * jnp.sqrt(squared)
        error = jnp.clip(error, -bound, bound)
        if scale_error:
            error = error / (absolute / (1 - slow**count) + _EPSILON)
        begun = 1 - fading**count
        root = jnp.sqrt(size / begun * _weighted(trace, scale))
        step = rate / jnp.maximum(root, _EPSILON)  # (3)
        change = jax.tree.map(lambda z, m: step * error * z / m, trace, scale)  # (4)
        return change, IntendedState(moments, size, squared, absolute)

    return StepRule(init, update)


def by_optax(optimizer: optax.GradientTransformation) -> StepRule:
    """Any optax optimiser: it descends along -error trace.

    Args:
        optimizer: such as `optax.adam(3e-4)`. It may not need the parameters.
    """

    def update(gradient, trace, error, state):
        descent = jax.tree.map(lambda z: -error * z, trace)
        with jax.numpy_dtype_promotion("standard"):  # optax relies on it
            return optimizer.update(descent, state)

    return StepRule(optimizer.init, update)


def _bounded(trace: Any, error: Any, rate: float, kappa: float) -> Any:
    """The change of ObGD, (1) and (2)."""
    norm = _sum(jax.tree.map(lambda z: jnp.sum(jnp.abs(z)), trace))
    overshoot = jnp.maximum(jnp.abs(error), 1) * norm * rate * kappa
    step = rate / jnp.maximum(1, overshoot) * error
    return jax.tree.map(lambda z: step * z, trace)


def _check(**numbers: float) -> None:
    for name, value in numbers.items():
        check_number(name, value, "> 0", "leave it out for the usual one")


def _no_moments(params: Any) -> Moments:
    return Moments(jax.tree.map(jnp.zeros_like, params), jnp.zeros((), int))


def _observe(moments: Moments, sample: Any, decay: float) -> Moments:
    second = jax.tree.map(lambda v, g: decay * v + (1 - decay) * g**2, moments.second, sample)
    return Moments(second, moments.steps + 1)


def _corrected(moments: Moments, decay: float) -> Any:
    """The moments without the weight of the zeros that they started from."""
    count = moments.steps.astype(_dtype(moments.second))
    return jax.tree.map(lambda v: v / (1 - decay**count), moments.second)


def _weighted(values: Any, scale: Any) -> Any:
    """The sum of squares over scale, of all parameters."""
    return _sum(jax.tree.map(lambda a, m: jnp.sum(a**2 / m), values, scale))


def _sum(tree: Any) -> Any:
    return reduce(add, jax.tree.leaves(tree))


def _dtype(tree: Any) -> Any:
    return jax.tree.leaves(tree)[0].dtype
