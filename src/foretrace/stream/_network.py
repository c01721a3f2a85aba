"""The recurrent network of every model: a cell, the learner that fits it, Adam."""

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

CELLS = tuple(cells.CELLS)
_UNITWISE = ("elstm", "rtu", "diagonal")  # exact RTRL is as cheap as the weights: no unit sees another
_LONGEST = 400.0  # steps that the slowest unit remembers at first


class Network(NamedTuple):
    """State of the network.

    Attributes:
        params: `cell`, and the readouts under their names, (outputs, features).
        optimizer: state of Adam.
        learner: state of the learner, with the hidden state.
    """

    params: dict[str, Any]
    optimizer: Any
    learner: Any


class NetworkParts(NamedTuple):
    """Functions of a network; `spread_gates` says that its forget gates start at many time scales."""

    cell: Cell
    learner: Learner
    optimizer: optax.GradientTransformation
    spread_gates: bool


@functools.cache
def network_parts(name: str, hidden: int, inputs: int, learning_rate: float) -> NetworkParts:
    """A cell by its name with the learner that suits it.

    Exact RTRL where no unit sees another and the exact influence is as cheap as the weights, else OK with
    8 Kronecker products and a block of 16 steps.

    Raises:
        ValueError: if there is no such cell.
    """
    if name not in CELLS:
        raise UserError(f"cell must be one of {', '.join(CELLS)}; got {name!r}; elstm is the default.")
    cell = cells.CELLS[name](hidden=hidden, inputs=inputs)
    learner = learners.rtrl(cell) if name in _UNITWISE else learners.ok(cell, rank=8, block=16)
    return NetworkParts(cell, learner, optax.adam(learning_rate), name == "elstm")


def init(parts: NetworkParts, key: Any, readouts: dict[str, tuple[int, int]]) -> Network:
    """A network whose readouts are 0.

    Args:
        parts: its functions.
        key: typed key.
        readouts: names, with numbers of outputs and features.
    """
    cell_key, learner_key = jax.random.split(key)
    cell = parts.cell.init(cell_key)
    if parts.spread_gates:
        cell = _spread_gates(cell)
    params = {"cell": cell} | {name: jnp.zeros(shape) for name, shape in readouts.items()}
    return Network(params, parts.optimizer.init(params), parts.learner.init(learner_key, cell))


def step(parts: NetworkParts, net: Network, x: jax.Array) -> Network:
    """Advances the network by one input."""
    state, _ = parts.learner.step(net.params["cell"], net.learner, x)
    return net._replace(learner=state)


def next_hidden(parts: NetworkParts, net: Network, hidden: Any, x: jax.Array) -> Any:
    """The hidden state one input after `hidden`; the network does not change."""
    return parts.cell.step(net.params["cell"], hidden, x)


def fit(
    parts: NetworkParts, net: Network, loss: Callable[[dict[str, Any], Any], jax.Array], weight: jax.Array
) -> Network:
    """Updates all parameters once.

    Args:
        parts: the functions.
        net: the network after its step.
        loss: `(readouts, hidden) -> scalar`.
        weight: a factor of the gradient, 0 for no update.
    """
    readouts = {name: leaf for name, leaf in net.params.items() if name != "cell"}
    to_readouts, credit = jax.grad(loss, argnums=(0, 1))(readouts, net.learner.hidden)
    to_cell = parts.learner.grad(net.params["cell"], net.learner, credit)
    gradient = {"cell": to_cell, **to_readouts}
    # No sample may move the weights far, and one bad number must not end an endless stream.
    norm = weight * optax.tree.norm(gradient)
    part = jnp.where(jnp.isfinite(norm), weight / jnp.maximum(norm, 1), 0)
    gradient = jax.tree.map(lambda leaf: jnp.where(part > 0, part * leaf, 0), gradient)
    with jax.numpy_dtype_promotion("standard"):  # optax relies on it
        changes, optimizer = parts.optimizer.update(gradient, net.optimizer, net.params)
    params: Any = optax.apply_updates(net.params, changes)
    return net._replace(params=params, optimizer=optimizer)


def output_size(parts: NetworkParts) -> int:
    """Length of the cell's output."""
    return jax.eval_shape(lambda: parts.cell.output(parts.cell.initial_hidden())).shape[0]


def enlarge(old: Any, new: Any) -> Any:
    """Copies a smaller state into the first places of every array of a larger one.

    The other places keep their initial values. If the cell has new parameters, the influence of the past
    on all of them is forgotten; the hidden state goes on.
    """

    def place(small, large):
        return large.at[tuple(slice(n) for n in small.shape)].set(small) if small.ndim else small

    def network(small, large):
        if not isinstance(small, Network):
            return place(small, large)
        shapes = [[leaf.shape for leaf in jax.tree.leaves(net.learner)] for net in (small, large)]
        learner = small.learner
        if shapes[0] != shapes[1]:
            learner = large.learner._replace(hidden=small.learner.hidden)
        params = jax.tree.map(place, small.params, large.params)
        return Network(params, jax.tree.map(place, small.optimizer, large.optimizer), learner)

    return jax.tree.map(network, old, new, is_leaf=lambda leaf: isinstance(leaf, Network))


def _spread_gates(params: dict[str, Any]) -> dict[str, Any]:
    """Sets forget gates that remember for 2 to 400 steps, evenly on a logarithmic scale.

    Source: Tallec, Ollivier, Can recurrent neural networks warp time?, ICLR 2018; there at random.
    """
    n = params["bias"].shape[0] // 2
    steps = jnp.exp(jnp.linspace(math.log(2.0), math.log(_LONGEST), n))
    bias = params["bias"]
    return params | {"bias": bias.at[:n].set(jnp.log(steps - 1).astype(bias.dtype))}
