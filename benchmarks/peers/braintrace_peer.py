"""BrainTrace, from its public names alone."""

from typing import Any

import jax
import jax.numpy as jnp
from rows import INPUTS, LEAK, SPAN, STEPS, WINDOW, Contender, Row, inputs_of

NAME = PACKAGE = "braintrace"


def contenders(row: Row) -> dict[str, Contender]:
    """D-RTRL, which on leaky units is RFLO, and pp_prop."""
    method = row.method.split(":")[0]
    if row.cell != "leaky" or method not in ("rflo", "eprop", "pp_prop"):
        return {}
    import brainstate
    import braintrace

    class Leaky(brainstate.nn.Module):
        """Leaky tanh units, as `foretrace.cells.leaky`."""

        def __init__(self) -> None:
            super().__init__()
            self.weights = braintrace.nn.Linear(row.units + INPUTS, row.units)

        def init_state(self, batch_size: Any = None, **_: Any) -> None:
            axes = () if batch_size is None else (batch_size,)
            self.hidden = brainstate.HiddenState(jnp.zeros((*axes, row.units)))

        def update(self, x: Any) -> Any:
            both = jnp.concatenate([x, self.hidden.value], axis=-1)
            self.hidden.value = (1 - LEAK) * self.hidden.value + LEAK * jnp.tanh(self.weights(both))
            return self.hidden.value

    xs = jnp.tile(inputs_of(row, WINDOW), (STEPS // WINDOW, 1, 1))
    if row.lanes == 1:
        xs = xs[:, 0]
    chosen = {"pp_prop": braintrace.pp_prop}.get(method, braintrace.D_RTRL)
    options = {"decay_or_rank": SPAN} if method == "pp_prop" else {}
    lanes = {} if row.lanes == 1 else {"batch_size": row.lanes}
    learner = braintrace.compile(Leaky(), chosen, xs[0], **lanes, **options)

    def loss(x: Any, _: Any) -> Any:
        return 0.5 * jnp.sum(learner(x) ** 2)

    @brainstate.transform.jit
    def gradients(xs: Any) -> Any:
        return learner.etrace_grad(xs, xs, step_fn=loss)

    def run(carry: Any) -> Any:
        return jax.block_until_ready(gradients(xs))

    return {NAME: Contender(run, run(None), STEPS)}
