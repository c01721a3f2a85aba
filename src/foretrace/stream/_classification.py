"""Classification on a stream: features come, probabilities are said, the class comes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from foretrace.stream import _network, _scale

_CODE = 8  # numbers that stand for the class before


class Classes(NamedTuple):
    """What is fixed while a stream runs.

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
    """All of a classifier that continues.

    Attributes:
        network: with the readout `class`, (classes, features).
        inputs: moments of the features.
        last: the class before, an index; -1 before there was one.
        known: (classes,), 1 for those that were seen.
    """

    network: _network.Network
    inputs: _scale.Moments
    last: jax.Array
    known: jax.Array


def parts(plan: Classes) -> _network.Parts:
    """The network's parts."""
    return _network.parts(plan.cell, plan.hidden, 1 + _CODE + plan.features, plan.learning_rate)


def initial(plan: Classes, key: Any) -> ClassState:
    """The state before anything was seen."""
    made = parts(plan)
    shape = plan.classes, 1 + _CODE + _network.size(made) + plan.features
    return ClassState(
        network=_network.network(made, key, {"class": shape}),
        inputs=_scale.moments(plan.features),
        last=-jnp.ones((), int),
        known=jnp.zeros(plan.classes),
    )


class Chosen(NamedTuple):
    """An answer, with what it takes to learn from its truth later.

    Attributes:
        logits: (classes,).
        last: the class before, when it was given.
        hidden: the hidden state that gave it.
    """

    logits: jax.Array
    last: jax.Array
    hidden: Any


def answer(plan: Classes, state: ClassState, x: jax.Array, hidden: Any) -> Chosen:
    """What will the class of features x (n,) be, after a hidden state? Nothing is learned."""
    made = parts(plan)
    u = _input(state, x, state.last)
    hidden = _network.peek(made, state.network, hidden, u)
    return Chosen(_logits(state.network.params, u, hidden), state.last, hidden)


def learn(
    plan: Classes, state: ClassState, x: jax.Array, y: jax.Array, last: jax.Array
) -> tuple[ClassState, jax.Array]:
    """The state after class y of features x came, and the logits there would have been.

    Args:
        plan: what is fixed.
        state: what was learned.
        x: features (n,), not finite where they are unknown.
        y: index of the class, -1 if it is unknown: then only the hidden state advances.
        last: the class before, when the answer was given.
    """
    made = parts(plan)
    u = _input(state, x, last)
    net = _network.step(made, state.network, u)
    before = _logits(net.params, u, net.learner.hidden)

    known = jnp.maximum(state.known, jax.nn.one_hot(y, plan.classes))

    def loss(readouts, hidden):
        # Room for classes that may come one day must not count.
        logits = jnp.where(known > 0, _logits(readouts, u, hidden), -1e30)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(y, 0))

    net = _network.fit(made, net, loss, (y >= 0).astype(x.dtype))
    inputs, last = _scale.seen(state.inputs, x), jnp.where(y >= 0, y, state.last)
    return ClassState(net, inputs, last, known), before


def _input(state: ClassState, x: jax.Array, last: jax.Array) -> jax.Array:
    """1, a code of the class before and the features, those last so that there can be more of them."""
    bits = (last * 0x9E37 + 0x79B9) >> jnp.arange(_CODE) & 1
    code = jnp.where(last >= 0, 2 * bits - 1, 0).astype(x.dtype)
    features = _scale.standard(_scale.seen(state.inputs, x), x)
    return jnp.concatenate([jnp.ones_like(x, shape=1), code, features])


def _logits(readouts: dict[str, Any], u: jax.Array, hidden: Any) -> jax.Array:
    # The hidden state goes between, so that there can be more features without moving anything.
    common, features = u[: 1 + _CODE], u[1 + _CODE :]
    return readouts["class"] @ jnp.concatenate([common, _network.seen(hidden), features])
