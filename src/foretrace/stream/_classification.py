"""Classification on a stream: features arrive, probabilities are predicted, the class arrives."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from foretrace.stream import _network, _origin, _scale

_CODE = 8  # numbers that encode the previous class


class ClassConfig(NamedTuple):
    """Constants of a classifier; another configuration is compiled anew.

    Attributes:
        cell: name of the cell.
        hidden: number of its units.
        features: number of features that there is room for.
        classes: number of classes that there is room for.
        learning_rate: of the network.
    """

    cell: str
    hidden: int
    features: int
    classes: int
    learning_rate: float


class ClassState(NamedTuple):
    """State of a classifier.

    Attributes:
        input_origin: of the features; the moments are those of the differences.
        network: with the readout `class`, (classes, features).
        inputs: moments of the features.
        last: index of the previous class; -1 before there was one.
        known: (classes,), 1 for those that occurred.
    """

    input_origin: _origin.Origin
    network: _network.Network
    inputs: _scale.Moments
    last: jax.Array
    known: jax.Array


class ClassPrediction(NamedTuple):
    """A prediction, with the context that learns from its label later.

    Attributes:
        logits: (classes,).
        last: the previous class at that time.
        hidden: the hidden state at that time.
    """

    logits: jax.Array
    last: jax.Array
    hidden: Any


def network_parts(config: ClassConfig) -> _network.NetworkParts:
    """Functions of the network."""
    return _network.network_parts(
        config.cell, config.hidden, 1 + _CODE + config.features, config.learning_rate
    )


def init(config: ClassConfig, key: Any) -> ClassState:
    """The state before the first sample."""
    parts = network_parts(config)
    shape = config.classes, 1 + _CODE + _network.output_size(parts) + config.features
    return ClassState(
        input_origin=_origin.init(config.features),
        network=_network.init(parts, key, {"class": shape}),
        inputs=_scale.init(config.features),
        last=-jnp.ones((), int),
        known=jnp.zeros(config.classes),
    )


def predict(config: ClassConfig, state: ClassState, x: jax.Array, hidden: Any) -> ClassPrediction:
    """Predicts the class of features x, pairs (n, 2), after a hidden state; nothing is learned."""
    inputs = _input(state, _differences(state, x)[0], state.last)
    parts = network_parts(config)
    hidden = _network.next_hidden(parts, state.network, hidden, inputs)
    logits = _logits(state.network.params, inputs, parts.cell.output(hidden))
    return ClassPrediction(logits, state.last, hidden)


def learn(
    config: ClassConfig, state: ClassState, x: jax.Array, y: jax.Array, weight: jax.Array, last: jax.Array
) -> tuple[ClassState, jax.Array]:
    """Learns the class y of features x; also returns the logits just before.

    Args:
        config: the configuration.
        state: the state.
        x: features, pairs (n, 2), not finite where they are unknown.
        y: index of the class, -1 if it is unknown: then only the hidden state advances.
        weight: of this sample beside the others.
        last: the previous class at the time of the prediction.
    """
    parts = network_parts(config)
    x, origin = _differences(state, x)
    inputs = _input(state, x, last)
    network = _network.step(parts, state.network, inputs)
    logits = _logits(network.params, inputs, parts.cell.output(network.learner.hidden))
    known = jnp.maximum(state.known, jax.nn.one_hot(y, config.classes))

    def loss(readouts, hidden):
        # Room for classes that may occur one day must not count.
        logits = _logits(readouts, inputs, parts.cell.output(hidden))
        logits = jnp.where(known > 0, logits, -1e30)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(y, 0))

    network = _network.fit(parts, network, loss, jnp.where(y >= 0, weight, 0))
    moments, last = _scale.update(state.inputs, x), jnp.where(y >= 0, y, state.last)
    origin, shift = _origin.follow(origin, moments.mean, jnp.sqrt(moments.variance))
    moments = moments._replace(mean=moments.mean - shift)
    return ClassState(origin, network, moments, last, known), logits


def _differences(state: ClassState, x: jax.Array) -> tuple[jax.Array, _origin.Origin]:
    """Features as differences from their origin, (n,), and the origin, which starts at the first ones."""
    origin = _origin.start(state.input_origin, x, state.inputs.samples)
    return _origin.difference(x, origin), origin


def _input(state: ClassState, x: jax.Array, last: jax.Array) -> jax.Array:
    """1, a code of the previous class and the features, those last so that there can be more of them."""
    bits = (last * 0x9E37 + 0x79B9) >> jnp.arange(_CODE) & 1
    code = jnp.where(last >= 0, 2 * bits - 1, 0).astype(x.dtype)
    features = _scale.standard(_scale.update(state.inputs, x), x)
    return jnp.concatenate([jnp.ones_like(x, shape=1), code, features])


def _logits(readouts: dict[str, Any], inputs: jax.Array, output: jax.Array) -> jax.Array:
    # The output goes between, so that there can be more features without moving anything.
    common, features = inputs[: 1 + _CODE], inputs[1 + _CODE :]
    return readouts["class"] @ jnp.concatenate([common, output, features])
