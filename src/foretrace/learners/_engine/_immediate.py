"""The engine of learners whose past represents the present step exactly: every step joins it at once.

    past <- past.push(the step),    gradient = past.read(credit)

No window is kept, and a block is a single step, at whose end there is nothing left to do.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from foretrace._types import Cell, Grad, Hidden, Info, Input, Params, Sweep
from foretrace.learners._engine._lane_sums import read_lanes
from foretrace.learners._engine._lanes import Lanes, check_credits, repeat
from foretrace.learners._engine._past import PastRule
from foretrace.learners._engine._window import push_lanes


class ImmediateState(NamedTuple):
    """All that continues. Everything but `hidden` has a lanes axis, of length 1 for a single stream.

    Attributes:
        hidden: hidden state, with a leading lanes axis if there are lanes.
        past: the method's representation of the influence, per lane.
        restart: (lanes,) bool, whether a lane begins anew before the next step, and so has no past.
        key: PRNG key.
    """

    hidden: Hidden
    past: Any
    restart: jax.Array
    key: jax.Array


class _Step(NamedTuple):
    """One step as a window of length 1."""

    past: Any
    window: tuple[jax.Array, ...]
    weights: tuple[()]
    key: jax.Array


class ImmediateEngine:
    """The functions of a `Learner` around the past of a rule that needs no window."""

    def __init__(self, cell: Cell, rule: PastRule) -> None:
        self.structure, self.rule = rule.structure, rule
        self._lanes = Lanes(cell, rule.structure)

    def init(self, key: jax.Array, params: Params, lanes: Any = None) -> ImmediateState:
        """See `foretrace._types.Init`."""
        hidden, count, key = self._lanes.first(key, params, lanes)
        return ImmediateState(hidden, repeat(self.rule.empty(), count), jnp.zeros(count, bool), key)

    def advance(self, params: Params, state: ImmediateState, x: Input) -> ImmediateState:
        """See `foretrace._types.Advance`."""
        hidden, residuals = self._lanes.forward(params, state, x)
        # The push drops the small Jacobian of lanes that restart; clearing their past would take a pass
        # through all of it.
        restarts = jnp.stack([state.restart, jnp.zeros_like(state.restart)])
        # Without weights of its own: the push follows at once, and reads those of the moment.
        step = _Step(state.past, jax.tree.map(lambda a: a[None], residuals), (), state.key)
        key, past, _ = push_lanes(self.rule, params, step, restarts, 1, len(state.restart))
        return ImmediateState(hidden, past, jnp.zeros_like(state.restart), key)

    def end_block(self, params: Params, state: ImmediateState) -> tuple[ImmediateState, Info]:
        """Does nothing but tell of the past."""
        return state, self._lanes.like_hidden(state, jax.vmap(self.rule.info)(state.past))

    def grad(self, params: Params, state: ImmediateState, credit: Hidden) -> Params:
        """See `foretrace._types.Grad`."""
        self._lanes.check_params(params)
        # Until the next step drops it, the past of a lane that begins anew is still there.
        credit = jnp.where(state.restart[:, None], 0, self._lanes.ravel(state, credit))
        return self.structure.gradient(*read_lanes(self.rule, state.past, credit))

    def reset(self, state: ImmediateState, restart: Any) -> ImmediateState:
        """See `foretrace._types.Reset`."""
        hidden, begun = self._lanes.begin(state, restart)
        return state._replace(hidden=hidden, restart=state.restart | begun)


def sweep_of_steps(grad: Grad) -> Sweep:
    """The sweep of a learner whose every step is a block: `credits` have a leading axis of length 1."""

    def sweep(params: Params, state: Any, credits: Hidden, /) -> Params:
        check_credits(credits, 1)
        return grad(params, state, jax.tree.map(lambda a: a[0], credits))

    return sweep
