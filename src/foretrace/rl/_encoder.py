"""Encoders, the layer before the recurrent one: outside of the cell, or inside of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace._checks import check_positive_int
from foretrace._types import Cell


class Encoder(NamedTuple):
    """Features of the first part of an input; the rest goes on as it is.

    Attributes:
        init: `(key, dtype) -> params`.
        apply: `(params, x) -> features`.
        size: number of features, for a number of inputs.
    """

    init: Callable[[Any, int, Any], Any]
    apply: Callable[[Any, jax.Array], jax.Array]
    size: int


def sparse_uniform(key: Any, shape: tuple[int, int], dtype: Any, sparsity: float = 0.9) -> jax.Array:
    """Weights (inputs, units) from U(-1, 1) / sqrt(inputs), of which each unit loses that share.

    At least one input of every unit stays: with nine inputs or fewer the share of the source would leave
    none.

    Source:
        Elsayed, Vasan, Mahmood, 2024, SparseInit.
    """
    weight_key, order_key = jax.random.split(key)
    bound = shape[0] ** -0.5
    weights = jax.random.uniform(weight_key, shape, dtype, -bound, bound)
    zeros = min(-int(-sparsity * shape[0] // 1), shape[0] - 1)
    ranks = jax.random.permutation(
        order_key, jnp.broadcast_to(jnp.arange(shape[0])[:, None], shape), 0, independent=True
    )
    return jnp.where(ranks < zeros, 0, weights)


def normed_layer(width: int, sparsity: float = 0.9) -> Encoder:
    """A sparse linear layer, normalised, and leaky.

        z = x @ kernel + bias
        features = leaky_relu((z - mean(z)) / sqrt(var(z) + 1e-5)), slope 0.01

    Args:
        width: number of features.
        sparsity: share of the weights that are zero at the start.

    Raises:
        TypeError, ValueError: `width` is not an int >= 1.

    Source:
        Elsayed, Vasan, Mahmood, Streaming deep reinforcement learning finally works, 2024.
    """
    check_positive_int("encoder", width, "leave it out for none")

    def init(key, inputs, dtype):
        return {
            "kernel": sparse_uniform(key, (inputs, width), dtype, sparsity),
            "bias": jnp.zeros(width, dtype),
        }

    def apply(params, x):
        z = x @ params["kernel"] + params["bias"]
        centred = z - jnp.mean(z)
        return jax.nn.leaky_relu(centred / jnp.sqrt(jnp.mean(centred**2) + 1e-5))

    return Encoder(init, apply, width)


def encoded(encoder: Encoder, cell: Cell, observations: int, inputs: int) -> Cell:
    """A cell that encodes its input itself: credit reaches the encoder through the whole past.

    Outside of a cell an encoder learns from the present step alone, however exact the cell's gradient is.

    Args:
        encoder: of the first `observations` entries of an input.
        cell: takes the features and the remaining entries.
        observations: entries that are encoded.
        inputs: length of an input.

    Returns:
        A cell with parameters `encoder` and `cell`.
    """
    dtype = cell.example_input().dtype

    def init(key):
        encoder_key, cell_key = jax.random.split(key)
        return {"encoder": encoder.init(encoder_key, observations, dtype), "cell": cell.init(cell_key)}

    def step(params, hidden, x):
        return cell.step(params["cell"], hidden, encode(encoder, params["encoder"], x, observations))

    return cell._replace(init=init, step=step, example_input=lambda: jnp.zeros(inputs, dtype))


def encode(encoder: Encoder, params: Any, x: jax.Array, observations: int) -> jax.Array:
    """The features of the first entries of an input, and the others."""
    return jnp.concatenate([encoder.apply(params, x[:observations]), x[observations:]])
