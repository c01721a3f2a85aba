"""What the networks of a frozen agent read in a life, and the credit that they are given there."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace._checks import check_positive_int
from foretrace._types import Cell, Learner
from foretrace._xla import map_sequentially
from foretrace.rl._agent import Agent, AgentState
from foretrace.rl._life import living
from foretrace.rl._network import Memory
from foretrace.rl._steps import StepRule
from foretrace.rl.environments import Environment


class Stream(NamedTuple):
    """What `measure_noise` wants to know of one network.

    Attributes:
        cell: the dynamics.
        params: of the cell.
        xs: inputs, leaves (steps, lives, ..).
        credits: of the gradient that the agent takes at every step, shaped like the hidden state, leaves
            (steps, lives, ..); zero after the last observation of an episode, from which none is taken.
        restarts: (steps, lives) bool, where an episode begins.
    """

    cell: Cell
    params: Any
    xs: Any
    credits: Any
    restarts: jax.Array


class _Step(NamedTuple):
    """The state of a learner that learns nothing: its last step."""

    hidden: Any
    x: Any
    restart: jax.Array


def streams_of(
    make: Callable[[Callable[[Cell], Learner], StepRule], Agent],
    environment: Environment,
    state: AgentState,
    *,
    steps: int,
    key: Any,
    lives: int = 1,
) -> dict[str, Stream]:
    """Lets an agent live on with the parameters that it has, and notes what its networks read.

    Args:
        make: `(learner, rule) -> agent` with that learner in every network and that rule for each of them.
        environment: where it lives; pure functions.
        state: of the same agent with any learner and rule. Every life has its parameters and statistics,
            and begins with a new episode.
        steps: calls of the agent.
        key: PRNG key.
        lives: their number.

    Returns:
        A stream for each network, by its name.

    Raises:
        TypeError, ValueError: a number is not an int >= 1.

    Example:
        >>> import jax, foretrace as ft
        >>> from foretrace import rl
        >>> world = rl.environments.trace_conditioning()
        >>> def make(learner, rule=None):
        ...     body = rl.Body(lambda inputs: ft.cells.gru(hidden=4, inputs=inputs), learner)
        ...     return rl.td(world, body, rule=rule)
        >>> state = make(ft.rtrl).init(jax.random.key(0))
        >>> streams = rl.streams_of(make, world, state, steps=20, key=jax.random.key(1))
        >>> streams["value"].credits.shape
        (20, 1, 4)
    """
    check_positive_int("steps", steps, "400 is usual")
    check_positive_int("lives", lives, "2 is usual")
    agent = observer(make)
    one = living(agent, environment, steps=1, discount=environment.discount)

    def live(key):
        life = one.init(key)

        def step(life, _):
            life, *_ = one.chunk(life)
            return life, noted(life.agent)

        # The gradient of a step is taken in the next one, when it is known what it led to.
        life = life._replace(agent=frozen(life.agent, state))
        return jax.lax.scan(step, life, length=steps + 1)[1]

    @jax.jit
    def all_notes(keys):
        return map_sequentially(live, keys)  # side by side, each step would begin an episode too

    return streams_from(agent, state.learned.params, all_notes(jax.random.split(key, lives)))


def observer(make: Callable[[Callable[[Cell], Learner], StepRule], Agent]) -> Agent:
    """An agent that learns nothing, and notes what it reads; see `noted`."""
    return make(_no_learner, _NOTES_THE_COTANGENT)


def frozen(mind: AgentState, state: AgentState) -> AgentState:
    """The state of an observer with parameters and statistics of the agent that it stands for."""
    learned = mind.learned._replace(params=state.learned.params)
    return mind._replace(learned=learned, senses=state.senses, steps=state.steps)


def noted(mind: AgentState) -> Any:
    """By network the last step, and the vector that the outputs of the one before were weighed by."""
    return {name: (memory.learner, mind.learned.rules[name]) for name, memory in mind.memory.items()}


def streams_from(agent: Agent, params: dict[str, Any], notes: Any) -> dict[str, Stream]:
    """The streams of lives.

    Args:
        agent: the observer.
        params: of its networks.
        notes: those of `noted`, leaves (lives, steps + 1, ..).
    """

    def credit_of(net, own, last, cotangent):
        def outputs(hidden):
            return net.output(own, Memory(last._replace(hidden=hidden), (), ()))

        return jax.vjp(outputs, last.hidden)[1](cotangent)[0]

    def stream(name, last, cotangents):
        net, later = agent.networks[name], last.restart[:, 1:]
        last = jax.tree.map(lambda a: a[:, :-1], last)
        cotangents = jnp.where(later[..., None], 0, cotangents[:, 1:])
        credits = jax.vmap(jax.vmap(lambda *step: credit_of(net, params[name], *step)))(last, cotangents)
        return jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), (last.x, credits, last.restart))

    arrays = jax.jit(lambda notes: {name: stream(name, *note) for name, note in notes.items()})(notes)
    return {
        name: Stream(agent.networks[name].cell, params[name]["cell"], *own) for name, own in arrays.items()
    }


def _no_learner(cell: Cell) -> Learner:
    """No gradient for the cell; its state tells the last step."""

    def init(key, params, lanes=None):
        return _Step(cell.initial_hidden(), cell.example_input(), jnp.zeros((), bool))

    def reset(state, restart):
        restart = jnp.asarray(restart)
        hidden = jax.tree.map(lambda a, b: jnp.where(restart, a, b), cell.initial_hidden(), state.hidden)
        return state._replace(hidden=hidden, restart=restart)

    def advance(params, state, x):
        return state._replace(hidden=cell.step(params, state.hidden, x), x=x)

    def grad(params, state, credit):
        return jax.tree.map(jnp.zeros_like, params)

    return Learner(init, advance, lambda params, state: (state, ()), grad, grad, reset)


# Changes nothing. A head is linear: the gradient of its bias is the vector that the outputs are weighed by.
_NOTES_THE_COTANGENT = StepRule(
    lambda params: jnp.zeros_like(params["head"]["bias"]),
    lambda gradient, trace, error, state: (
        jax.tree.map(jnp.zeros_like, gradient),
        gradient["head"]["bias"],
    ),
)
