"""The recurrent network under every estimator: a cell, the learner that fits it, Adam."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from foretrace import cells, learners
from foretrace._checks import UserError
from foretrace._types import Cell, Learner

CELLS = ("elstm", "rtu", "diagonal", "gru", "lstm", "highway", "rnn")
_UNITWISE = ("elstm", "rtu", "diagonal")  # their exact influence costs no more than their weights
_LONGEST = 400.0  # steps that the slowest unit remembers before it has learned anything


class Network(NamedTuple):
    """All of the network that continues.

    Attributes:
        params: `cell`, and the readouts under their names, (outputs, features).
        optimizer: state of the optimiser.
        learner: state of the learner, with the hidden state.
    """

    params: dict[str, Any]
    optimizer: Any
    learner: Any


class Parts(NamedTuple):
    """What a network is made of."""

    cell: Cell
    learner: Learner
    optimizer: optax.GradientTransformation
    slow: bool


@functools.cache  # finding the structure of a cell takes seconds
def parts(name: str, hidden: int, inputs: int, learning_rate: float) -> Parts:
    """A cell by its name with the learner that suits it.

    Exact RTRL where no unit sees another and the exact influence is as cheap as the weights, else OK with
    8 Kronecker products and a block of 16 steps.

    Raises:
        ValueError: if there is no such cell.
    """
    if name not in CELLS:
        raise UserError(f"cell must be one of {', '.join(CELLS)}; got {name!r}; elstm is the default.")
    cell = getattr(cells, name)(hidden=hidden, inputs=inputs)
    learner = learners.rtrl(cell) if name in _UNITWISE else learners.ok(cell, rank=8, block=16)
    return Parts(cell, learner, optax.adam(learning_rate), name == "elstm")


def network(made: Parts, key: Any, readouts: dict[str, tuple[int, int]]) -> Network:
    """A network whose readouts say 0.

    Args:
        made: its parts.
        key: typed key.
        readouts: names, with numbers of outputs and features.
    """
    cell_key, learner_key = jax.random.split(key)
    cell = made.cell.init(cell_key)
    if made.slow:
        cell = _spread(cell)
    params = {"cell": cell} | {name: jnp.zeros(shape) for name, shape in readouts.items()}
    return Network(params, made.optimizer.init(params), made.learner.init(learner_key, cell))


def step(made: Parts, net: Network, x: jax.Array) -> Network:
    """The network one step on."""
    state, _ = made.learner.step(net.params["cell"], net.learner, x)
    return net._replace(learner=state)


def peek(made: Parts, net: Network, hidden: Any, x: jax.Array) -> Any:
    """The hidden state one step on from another one; nothing else is touched."""
    return made.cell.step(net.params["cell"], hidden, x)


def fit(
    made: Parts, net: Network, loss: Callable[[dict[str, Any], Any], jax.Array], weight: jax.Array
) -> Network:
    """One update of all parameters.

    Args:
        made: the parts.
        net: the network after its step.
        loss: `(readouts, hidden) -> scalar`.
        weight: 0 or 1, what the gradient is multiplied with.
    """
    readouts = {name: leaf for name, leaf in net.params.items() if name != "cell"}
    to_readouts, credit = jax.grad(loss, argnums=(0, 1))(readouts, net.learner.hidden)
    to_cell = made.learner.grad(net.params["cell"], net.learner, credit)
    gradient = {"cell": to_cell, **to_readouts}
    # No sample may move the weights far, and one bad number must not end a stream that runs for ever.
    norm = weight * optax.tree.norm(gradient)
    part = jnp.where(jnp.isfinite(norm), weight / jnp.maximum(norm, 1), 0)
    gradient = jax.tree.map(lambda leaf: jnp.where(part > 0, part * leaf, 0), gradient)
    changes, optimizer = made.optimizer.update(gradient, net.optimizer, net.params)
    params: Any = optax.apply_updates(net.params, changes)
    return net._replace(params=params, optimizer=optimizer)


def seen(hidden: Any) -> jax.Array:
    """What a readout sees of a hidden state: all of it, of an LSTM h."""
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(getattr(hidden, "h", hidden))])


def size(made: Parts) -> int:
    """Number of features that a readout sees."""
    return jax.eval_shape(lambda: seen(made.cell.initial_hidden())).shape[0]


def grown(old: Any, new: Any) -> Any:
    """A larger state with a smaller one of the same kind in the first places of every array.

    What is new in an array keeps its initial value. Where parameters of the cell are new, the influence of
    the past on all of them begins anew; the hidden state goes on.
    """

    def place(small, large):
        return large.at[tuple(slice(n) for n in small.shape)].set(small) if small.ndim else small

    def network(small, large):
        if not isinstance(small, Network):
            return place(small, large)
        shapes = [[leaf.shape for leaf in jax.tree.leaves(net.learner)] for net in (small, large)]
        kept = small.learner
        if shapes[0] != shapes[1]:
            kept = large.learner._replace(hidden=small.learner.hidden)
        params = jax.tree.map(place, small.params, large.params)
        return Network(params, jax.tree.map(place, small.optimizer, large.optimizer), kept)

    return jax.tree.map(network, old, new, is_leaf=lambda leaf: isinstance(leaf, Network))


def _spread(params: dict[str, Any]) -> dict[str, Any]:
    """Forget gates that remember for 2 to 400 steps, evenly on a logarithmic scale.

    Source: Tallec, Ollivier, Can recurrent neural networks warp time?, ICLR 2018; there at random.
    """
    n = params["bias"].shape[0] // 2
    steps = jnp.exp(jnp.linspace(math.log(2.0), math.log(_LONGEST), n))
    bias = params["bias"]
    return params | {"bias": bias.at[:n].set(jnp.log(steps - 1).astype(bias.dtype))}
