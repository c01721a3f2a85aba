"""A network of an agent: encoder, cell, linear head; and its gradient through all of the past."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace._checks import UserError, check_kind
from foretrace._types import Cell, Learner
from foretrace.rl._encoder import Encoder, encode, encoded, sparse_uniform
from foretrace.structure._find import shapes_of


class Memory(NamedTuple):
    """What a network remembers of one stream.

    Attributes:
        learner: the learner's state, with the hidden state.
        before: the hidden state before the last step; nothing where no encoder is outside of the cell.
        x: the input of that step; likewise.
    """

    learner: Any
    before: Any
    x: Any


class Network(NamedTuple):
    """Outputs from a stream of inputs, as pure functions of parameters and memory.

    Attributes:
        init: `(key) -> params`.
        begin: `(key, params) -> memory`, with zero influence.
        step: `(params, memory, x, first) -> memory`; at the first input of an episode it begins anew.
        output: `(params, memory) -> outputs`, after a step.
        peek: `(params, memory, x) -> outputs` that a step would lead to, which is not taken.
        grad: `(params, memory, cotangent) -> gradient` of the product of the outputs and a vector, by the
            learner: of all parameters, through the whole past.
        cell: the dynamics, with the encoder where that is inside.
        dtype: of inputs and outputs.
    """

    init: Callable[[Any], Any]
    begin: Callable[[Any, Any], Memory]
    step: Callable[[Any, Memory, Any, Any], Memory]
    output: Callable[[Any, Memory], jax.Array]
    peek: Callable[[Any, Memory, Any], jax.Array]
    grad: Callable[[Any, Memory, Any], Any]
    cell: Cell
    dtype: Any


class Body(NamedTuple):
    """The parts of a network that a user chooses; agents add inputs and outputs.

    Attributes:
        cell: `(inputs) -> cell`, such as `lambda inputs: ft.cells.gru(hidden=64, inputs=inputs)`.
        learner: `(cell) -> learner`, such as `lambda cell: ft.low_rank(cell, rank=4)`.
        encoder: the layer before the cell, or None.
        inside: whether the encoder is a part of the cell.
        features: what the head reads, elementwise, of the cell's output: a nonlinearity for cells that are
            linear in the past.
    """

    cell: Callable[[int], Cell]
    learner: Callable[[Cell], Learner]
    encoder: Encoder | None = None
    inside: bool = False
    features: Callable[[Any], Any] = lambda output: output


def network(body: Body, observations: int, others: int, outputs: int) -> Network:
    """Builds a network.

    Args:
        body: its parts.
        observations: entries of an input that the encoder reads, the first ones.
        others: entries after these: last action and reward.
        outputs: number of outputs.

    Raises:
        UserError: the cell does not take vectors of that length, or does not give a vector.
    """
    inputs, encoder = observations + others, body.encoder
    cell = body.cell(inputs if encoder is None else encoder.size + others)
    check_kind("cell", cell, Cell, "give a function of the number of inputs that makes one")
    wanted = inputs if encoder is None else encoder.size + others
    example, output = jax.eval_shape(lambda: (cell.example_input(), cell.output(cell.initial_hidden())))
    if getattr(example, "shape", None) != (wanted,):
        raise UserError(
            f"cell must take a vector of {wanted}, observation, last action and reward; got one for "
            f"{shapes_of(example)}; build it with as many inputs as it is asked for."
        )
    if len(getattr(output, "shape", ())) != 1:
        raise UserError(
            f"cell.output must give a vector for the head; got {shapes_of(output)}; give output= to "
            "ft.cell, such as lambda hidden: hidden[0]."
        )
    if encoder and body.inside:
        cell, encoder = encoded(encoder, cell, observations, inputs), None
    learner = body.learner(cell)
    check_kind("learner", learner, Learner, "give a function of the cell that makes one")

    def init(key):
        encoder_key, cell_key, head_key = jax.random.split(key, 3)
        head = sparse_uniform(head_key, (output.shape[0], outputs), output.dtype)
        params = {
            "cell": cell.init(cell_key),
            "head": {"kernel": head, "bias": jnp.zeros(outputs, output.dtype)},
        }
        if encoder:
            params["encoder"] = encoder.init(encoder_key, observations, output.dtype)
        return params

    def begin(key, params):
        state = learner.init(key, params["cell"])
        if not encoder:
            return Memory(state, (), ())
        return Memory(state, cell.initial_hidden(), jnp.zeros(inputs, example.dtype))

    def cell_input(params, x):
        return encode(encoder, params["encoder"], x, observations) if encoder else x

    def step(params, memory, x, first):
        state = learner.reset(memory.learner, first)
        after, _ = learner.step(params["cell"], state, cell_input(params, x))
        return Memory(after, state.hidden, x) if encoder else Memory(after, (), ())

    def read(head, hidden):
        return body.features(cell.output(hidden)) @ head["kernel"] + head["bias"]

    def peek(params, memory, x):
        return read(params["head"], cell.step(params["cell"], memory.learner.hidden, cell_input(params, x)))

    def grad(params, memory, cotangent):
        _, to_head = jax.vjp(read, params["head"], memory.learner.hidden)
        head, credit = to_head(cotangent)
        gradient = {"cell": learner.grad(params["cell"], memory.learner, credit), "head": head}
        if encoder:

            def last(own):
                return cell.step(params["cell"], memory.before, cell_input({"encoder": own}, memory.x))

            gradient["encoder"] = jax.vjp(last, params["encoder"])[1](credit)[0]
        return gradient

    def after(params, memory):
        return read(params["head"], memory.learner.hidden)

    return Network(init, begin, step, after, peek, grad, cell, output.dtype)
