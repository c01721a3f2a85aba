"""DNI, decoupled neural interfaces: credit of the future foretold from the hidden state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from foretrace._checks import UserError, check_positive_int
from foretrace._types import Cell, Hidden, Learner
from foretrace.learners._engine import sweep_of_steps
from foretrace.learners._engine._lanes import Lanes
from foretrace.learners._engine._past import NoInfo
from foretrace.structure._find import structure_of


class DNIState(NamedTuple):
    """All that continues. Everything but `hidden`, `target` and `age` has a lanes axis, 1 if there is none.

    Attributes:
        hidden: hidden state, with a leading lanes axis if there are lanes.
        before: (lanes, S), the hidden state before the step.
        residuals: of the step.
        begun: (lanes,) bool, whether there was a step since the lane began anew.
        target: (S, S + 1), the copy of the synthesizer that bootstraps.
        age: steps since that was copied.
    """

    hidden: Hidden
    before: jax.Array
    residuals: tuple[jax.Array, ...]
    begun: jax.Array
    target: jax.Array
    age: jax.Array


def with_synthesizer(cell: Cell) -> Cell:
    """The same cell with a linear synthesizer of gradients among its parameters, for `dni`.

    Args:
        cell: the dynamics, any differentiable cell.

    Returns:
        A cell with parameters `cell`, those of the cell, and `synthesizer` (S, S + 1), zero at first, with
        the bias in its last column. Its step does not use the latter.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.contrib.with_synthesizer(ft.cells.rnn(hidden=8, inputs=3))
        >>> cell.init(jax.random.key(0))["synthesizer"].shape
        (8, 9)
    """

    def init(key):
        flat, _ = ravel_pytree(cell.initial_hidden())
        return {"cell": cell.init(key), "synthesizer": jnp.zeros((flat.size, flat.size + 1), flat.dtype)}

    return cell._replace(init=init, step=lambda params, hidden, x: cell.step(params["cell"], hidden, x))


def dni(cell: Cell, *, every: int = 5) -> Learner:
    """DNI: what the future will owe to the hidden state is foretold by a linear map that learns online.

    With A the synthesizer, A_old a copy of it that is renewed every few steps, H the state Jacobian:

        future = A [h_t, 1]                                                              (1)
        gradient of the cell = (credit_t + future) . immediate_jacobian                  (2)
        target = (credit_t + A_old [h_t, 1]) H                                           (3)
        gradient of A = (A [h_{t-1}, 1] - target) [h_{t-1}, 1]^T                         (4)

    (4) is that of 1/2 |A [h_{t-1}, 1] - target|^2. Both come from `grad`, in one tree: A learns with the
    cell, at the optimiser's step size or at one of its own (`optax.multi_transform`).

    Exactness: biased towards what a linear map can foretell. It looks ahead where the others look back:
    the sum of (2) over a stream is the gradient of the summed loss if future is the derivative of all later
    losses by h_t. With A = 0, as it starts, it is `immediate`. A copy is renewed at a step, and so belongs
    to the parameters before the update that follows.

    Cost: memory of one step per lane and S^2; time of a forward and two backward passes, S^2 per lane.

    Args:
        cell: a cell made by `with_synthesizer`.
        every: steps after which A_old is renewed.

    Returns:
        A learner; `info` is empty.

    Raises:
        TypeError, ValueError: `every` is not an int >= 1, or the cell is not from `with_synthesizer`.

    Example:
        >>> import jax, foretrace as ft
        >>> cell = ft.contrib.with_synthesizer(ft.cells.gru(hidden=8, inputs=3))
        >>> learner = ft.contrib.dni(cell)
        >>> params = cell.init(jax.random.key(0))
        >>> state = learner.init(jax.random.key(1), params)
        >>> state, info = learner.step(params, state, jax.numpy.ones(3))
        >>> learner.grad(params, state, jax.numpy.ones(8))["synthesizer"].shape
        (8, 9)

    Source: Jaderberg et al., ICML 2017, and Czarnecki et al., ICML 2017, with the online linear form
    and the copy of Marschall, Cho, Savin, JMLR 21(135), 2020. There A sees the label too and foretells
    credit_t with the future; here credit_t is taken as it is.
    """
    check_positive_int("every", every, "5 is the papers' choice")
    structure = structure_of(cell)
    params = jax.tree.unflatten(structure.treedef, structure.leaves)
    if not (isinstance(params, dict) and params.keys() == {"cell", "synthesizer"}):
        raise UserError(
            "cell must be made by with_synthesizer; got one without a synthesizer; use "
            "dni(with_synthesizer(cell))."
        )
    streams = Lanes(cell, structure)

    def init(key, params, lanes=None):
        hidden, count, _ = streams.first(key, params, lanes)
        shapes = structure.residual_shapes
        return DNIState(
            hidden=hidden,
            before=jnp.zeros((count, structure.state_size), structure.dtype),
            residuals=tuple(jnp.zeros((count, *a.shape), a.dtype) for a in shapes),
            begun=jnp.zeros(count, bool),
            target=jnp.copy(params["synthesizer"]),  # a state's memory may be given away, and not theirs
            age=jnp.zeros((), int),
        )

    def advance(params, state, x):
        before = streams.ravel(state, state.hidden)
        hidden, residuals = streams.forward(params, state, x)
        target = jnp.where(state.age == 0, params["synthesizer"], state.target)
        age = (state.age + 1) % every
        return DNIState(hidden, before, residuals, jnp.ones_like(state.begun), target, age)

    def end_block(params, state):
        return state, NoInfo()

    def grad(params, state, credit):
        streams.check_params(params)
        credit, hidden = (streams.ravel(state, tree) for tree in (credit, state.hidden))
        pullback = jax.vmap(structure.pullback, in_axes=(None, 0, 0))

        def foretold(weights, hidden):  # (1)
            return _extended(hidden) @ weights.T.astype(hidden.dtype)

        def where_begun(credit):
            return jnp.where(state.begun[:, None], credit, 0)

        total = where_begun(credit + foretold(params["synthesizer"], hidden))
        _, preacts, dense = pullback(params, state.residuals, total)
        factors = jax.vmap(structure.factors, axis_size=len(state.begun))(state.residuals)
        groups = [f.T @ z for f, z in zip(factors, preacts, strict=True)]
        gradient: Any = structure.gradient(groups, [jnp.sum(leaf, axis=0) for leaf in dense])  # (2)
        target, *_ = pullback(params, state.residuals, credit + foretold(state.target, hidden))  # (3)
        error = where_begun(foretold(params["synthesizer"], state.before) - target)
        slope = error.T @ _extended(state.before)  # (4)
        return gradient | {"synthesizer": slope.astype(params["synthesizer"].dtype)}

    def reset(state, restart):
        hidden, again = streams.begin(state, restart)
        return state._replace(hidden=hidden, begun=state.begun & ~again)

    return Learner(init, advance, end_block, grad, sweep_of_steps(grad), reset)


def _extended(hidden: jax.Array) -> jax.Array:
    """[h, 1] of every lane."""
    return jnp.concatenate([hidden, jnp.ones_like(hidden[:, :1])], axis=1)
