"""A mixture of four mixtures of experts, since no one way to weigh them is best for every stream.

Many experts cost rows until the best of them is known. A mixture of few is better at the beginning, and
where the others are of no use. One with the same weights for every time ahead has so many more errors to
go by, and one that forgets follows the experts that are best of late. The mixture of the four is nearly as
good as the best of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from foretrace.stream import _experts
from foretrace.stream._experts import ExpertWeights

FORECASTS = 5  # of each time ahead: of the four mixtures, then of the mixture of these
_KEEP = 1.0, 0.99, 0.99  # weight of a past regret, per new one
_IS_COMMON = True, False, True  # whether every time ahead has the same weights
_KEEP_ANEW = 0.3  # of the squares of the regrets of an expert that has become another


class Mixture(NamedTuple):
    """Regrets of the experts in each mixture, and of the four mixtures.

    Attributes:
        few: of the first experts alone, (H, few).
        all: of all experts, (3, H, experts): in one with the same weights for every time ahead, in one that
            forgets, and in one that does both.
        top: of the four, (H, 4).
    """

    few: ExpertWeights
    all: ExpertWeights
    top: ExpertWeights


def init(forecasts: int, few: int, experts: int) -> Mixture:
    """Equal weights.

    Args:
        forecasts: how many, H.
        few: number of experts, the first ones, of the mixture of few.
        experts: number of all.
    """
    three = ExpertWeights(*(jnp.zeros((len(_KEEP), forecasts, experts)) for _ in range(2)))
    return Mixture(_experts.init(forecasts, few), three, _experts.init(forecasts, FORECASTS - 1))


def combine(mixture: Mixture, predictions: jax.Array) -> jax.Array:
    """The forecasts of the four mixtures and of all together, (H, 5), of the experts' (H, experts)."""
    few = jnp.sum(_experts.weights(mixture.few) * predictions[:, : mixture.few.regret.shape[1]], axis=1)
    others = jnp.sum(_weights_of_all(mixture) * predictions[None], axis=2)
    four = jnp.concatenate([few[None], others]).T
    together = jnp.sum(_experts.weights(mixture.top) * four, axis=1, keepdims=True)
    return jnp.concatenate([four, together], axis=1)


def update(
    mixture: Mixture, predictions: jax.Array, combined: jax.Array, truth: jax.Array, scale: jax.Array
) -> Mixture:
    """Adds the regrets of one forecast for each time ahead.

    Args:
        mixture: so far.
        predictions: of the experts, (H, experts).
        combined: what `combine` made of them then, (H, 5).
        truth: (H,); no regret where it is not finite.
        scale: the unit of errors, (H,).
    """
    few = predictions[:, : mixture.few.regret.shape[1]]
    add = _experts.update_weights
    return Mixture(
        few=add(mixture.few, few, combined[:, 0], truth, scale),
        all=add(
            mixture.all,
            predictions[None],
            combined[:, 1:-1].T,
            truth[None],
            scale[None],
            keep=jnp.array(_KEEP)[:, None, None],
        ),
        top=add(mixture.top, combined[:, :-1], combined[:, -1], truth, scale),
    )


def begin_anew(mixture: Mixture, are_new: jax.Array) -> Mixture:
    """Forgets how well experts did, by flags (experts,): they have become others."""
    # With no squares a single lucky forecast would outweigh all that others have shown.
    are_new = are_new[None, None]
    regret, squares = mixture.all
    keep = jnp.where(are_new, _KEEP_ANEW, 1.0)
    return mixture._replace(all=ExpertWeights(jnp.where(are_new, 0, regret), keep * squares))


def weights(mixture: Mixture) -> jax.Array:
    """The weight of each expert in the end, (H, experts)."""
    few, top = _experts.weights(mixture.few), _experts.weights(mixture.top)
    others = _weights_of_all(mixture)
    few = jnp.pad(few, ((0, 0), (0, others.shape[2] - few.shape[1])))
    return top[:, :1] * few + jnp.sum(top[:, 1:].T[:, :, None] * others, axis=0)


def _weights_of_all(mixture: Mixture) -> jax.Array:
    """The weights of all experts in the mixtures of all, (3, H, experts)."""
    is_common = jnp.array(_IS_COMMON)[:, None, None]
    old = (jnp.where(is_common, jnp.mean(each, axis=1, keepdims=True), each) for each in mixture.all)
    return _experts.weights(ExpertWeights(*old))
