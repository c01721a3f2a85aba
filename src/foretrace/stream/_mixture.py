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
_KEEP = 0.99  # weight of a past regret, per new one, of the mixtures that forget
_KEEP_ANEW = 0.3  # of the squares of the regrets of an expert that has become another


class Mixture(NamedTuple):
    """Regrets of the experts in each mixture, and of the four mixtures.

    Attributes:
        few: of the first experts alone.
        common: of all, with weights that are the same for every time ahead.
        late: of all, forgetting.
        late_common: of all, forgetting, with weights that are the same for every time ahead.
        top: of the four.
    """

    few: ExpertWeights
    common: ExpertWeights
    late: ExpertWeights
    late_common: ExpertWeights
    top: ExpertWeights


def init(forecasts: int, few: int, experts: int) -> Mixture:
    """Equal weights.

    Args:
        forecasts: how many, H.
        few: number of experts, the first ones, of the mixture of few.
        experts: number of all.
    """
    sizes = few, experts, experts, experts, FORECASTS - 1
    return Mixture(*(_experts.init(forecasts, n) for n in sizes))


def combine(mixture: Mixture, predictions: jax.Array) -> jax.Array:
    """The forecasts of the four mixtures and of all together, (H, 5), of the experts' (H, experts)."""
    forecasts = [
        jnp.sum(weights * predictions[:, : weights.shape[1]], axis=1, keepdims=True)
        for weights in _weights_of_each(mixture)
    ]
    four = jnp.concatenate(forecasts, axis=1)
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

    def add(old, forecasts, together, keep=1.0):
        return _experts.update_weights(old, forecasts, together, truth, scale, keep=keep)

    few = predictions[:, : mixture.few.regret.shape[1]]
    of_few, of_common, of_late, of_late_common, together = combined.T
    return Mixture(
        few=add(mixture.few, few, of_few),
        common=add(mixture.common, predictions, of_common),
        late=add(mixture.late, predictions, of_late, _KEEP),
        late_common=add(mixture.late_common, predictions, of_late_common, _KEEP),
        top=add(mixture.top, combined[:, :-1], together),
    )


def begin_anew(mixture: Mixture, are_new: jax.Array) -> Mixture:
    """Forgets how well experts did, by flags (experts,): they have become others."""

    def forget(old):
        # With no squares a single lucky forecast would outweigh all that others have shown.
        keep = jnp.where(are_new[None], _KEEP_ANEW, 1.0)
        return ExpertWeights(jnp.where(are_new[None], 0, old.regret), keep * old.squares)

    return mixture._replace(
        common=forget(mixture.common),
        late=forget(mixture.late),
        late_common=forget(mixture.late_common),
    )


def weights(mixture: Mixture) -> jax.Array:
    """The weight of each expert in the end, (H, experts)."""
    each, top = _weights_of_each(mixture), _experts.weights(mixture.top)
    experts = each[-1].shape[1]
    padded = [jnp.pad(one, ((0, 0), (0, experts - one.shape[1]))) for one in each]
    return sum((top[:, i : i + 1] * one for i, one in enumerate(padded)), jnp.zeros(padded[-1].shape))


def _weights_of_each(mixture: Mixture) -> list[jax.Array]:
    """The weights in each of the four mixtures, (H, experts)."""

    def same_for_every_time(old):
        means = ExpertWeights(*(jnp.mean(each, axis=0, keepdims=True) for each in old))
        return jnp.broadcast_to(_experts.weights(means), old.regret.shape)

    few, late = (_experts.weights(each) for each in (mixture.few, mixture.late))
    return [few, same_for_every_time(mixture.common), late, same_for_every_time(mixture.late_common)]
