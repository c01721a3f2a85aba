"""A mixture of two mixtures of experts: of the few that know of no season, and of all.

Many experts cost rows until the best of them is known. Where a stream has no season, the mixture of few is
as good at the end and better at the beginning; the mixture of both is nearly as good as the better one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from foretrace.stream import _experts
from foretrace.stream._experts import ExpertWeights


class Mixture(NamedTuple):
    """Regrets of the experts in either mixture, and of the two mixtures."""

    few: ExpertWeights
    all: ExpertWeights
    both: ExpertWeights


def init(forecasts: int, few: int, experts: int) -> Mixture:
    """Equal weights.

    Args:
        forecasts: how many, H.
        few: number of experts, the first ones, of the mixture of few.
        experts: number of all.
    """
    return Mixture(*(_experts.init(forecasts, n) for n in (few, experts, 2)))


def size(few: int, experts: int) -> int:
    """Length of the weights that `combine` returns for each forecast."""
    return few + experts + 2


def combine(mixture: Mixture, predictions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mixture of the experts' predictions, (H, experts), and the weights of all three, (H, n)."""
    used = jnp.concatenate([_experts.weights(each) for each in mixture], axis=1)
    return combined(mixture, predictions, used), used


def combined(mixture: Mixture, predictions: jax.Array, used: jax.Array) -> jax.Array:
    """The mixture of predictions with given weights, (H,)."""
    *_, of_both = _split(mixture, used)
    return jnp.sum(of_both * _pair(mixture, predictions, used), axis=1)


def update(
    mixture: Mixture, predictions: jax.Array, used: jax.Array, truth: jax.Array, scale: jax.Array
) -> Mixture:
    """Adds the regrets of one forecast each; the arguments are those of `_experts.update_weights`."""
    of_few, of_all, of_both = _split(mixture, used)
    pair = _pair(mixture, predictions, used)
    return Mixture(
        _experts.update_weights(mixture.few, predictions[:, : of_few.shape[1]], of_few, truth, scale),
        _experts.update_weights(mixture.all, predictions, of_all, truth, scale),
        _experts.update_weights(mixture.both, pair, of_both, truth, scale),
    )


def begin_anew(mixture: Mixture, are_new: jax.Array) -> Mixture:
    """Forgets how well experts did, by flags (experts,): they have become others."""
    regret, squares = (jnp.where(are_new[None], 0, each) for each in mixture.all)
    return mixture._replace(all=ExpertWeights(regret, squares))


def weights(mixture: Mixture) -> jax.Array:
    """The weight of each expert in the end, (H, experts)."""
    few, of_all, both = (_experts.weights(each) for each in mixture)
    others = of_all.shape[1] - few.shape[1]
    return both[:, :1] * jnp.pad(few, ((0, 0), (0, others))) + both[:, 1:] * of_all


def _split(mixture: Mixture, used: jax.Array) -> list[jax.Array]:
    few, experts = mixture.few.regret.shape[1], mixture.all.regret.shape[1]
    return jnp.split(used, [few, few + experts], axis=1)


def _pair(mixture: Mixture, predictions: jax.Array, used: jax.Array) -> jax.Array:
    """What the mixture of few and that of all predict, (H, 2)."""
    of_few, of_all, _ = _split(mixture, used)
    few = predictions[:, : of_few.shape[1]]
    return jnp.stack([jnp.sum(of_few * few, axis=1), jnp.sum(of_all * predictions, axis=1)], axis=1)
