"""jax_rtrl, which no package index has: a clone of github.com/FranzKnut/jax_rtrl on PYTHONPATH.

Its RFLO of CTRNN cells is that of `foretrace.cells.leaky`, and also carries what the state owes to the time
constants, which it trains, and to the input. It takes one stream; lanes are `jax.vmap` of it.

Its linear recurrent unit is not here: called for a step at a time, as a stream needs it, `OnlineLRUCell`
begins every step at zero. The one it was made from is in `rtus_peer`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from ours import params_of
from rows import INPUTS, LEAK, Contender, Row, differentiated

NAME = "jax_rtrl"
PACKAGE = "jax_rtrl.models.cells.ctrnn"


def contenders(row: Row) -> dict[str, Contender]:
    """RFLO, which on leaky units is e-prop too."""
    if row.cell != "leaky" or row.method not in ("rflo", "eprop"):
        return {}
    from jax_rtrl.models.cells.ctrnn import OnlineCTRNNCell

    cell = OnlineCTRNNCell(row.units, ode_type="murray")
    state = cell.initialize_carry(jax.random.key(0), (INPUTS,))
    state = jax.tree.map(lambda a: jnp.zeros((row.lanes, *a.shape)), state)
    ours = params_of(row)
    weights = jnp.concatenate([ours["input"].T, ours["recurrent"].T, ours["bias"][:, None]], axis=1)
    params = {"W": weights, "tau": jnp.full(row.units, 1 / LEAK)}

    def loss(params: Any, state: Any, x: Any) -> Any:
        state, out = jax.vmap(lambda state, x: cell.apply({"params": params}, state, x))(state, x)
        return 0.5 * jnp.sum(out**2), state

    return {NAME: differentiated(loss, params, state, row)}
