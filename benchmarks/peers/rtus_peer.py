"""The code of the paper on recurrent trace units (Elelimy et al., 2024), which no package index has.

A clone of github.com/SakodaShintaro/rtus, a copy of it, on PYTHONPATH. Its cells take a step of all lanes
at once, and hand out the sum of their gradients. Two derivatives are not those of foretrace, at the price
of as many operations: trace units hand out the one by the angle, where their parameter is its logarithm,
and the linear recurrent unit adds the logarithm of its input's scale to a trace, not the scale.
"""

from typing import Any

import jax
import jax.numpy as jnp
from ours import params_of
from rows import INPUTS, Contender, Row, differentiated

NAME = "rtus"
PACKAGE = "src.nets.rtus.linear_rtus"


def contenders(row: Row) -> dict[str, Contender]:
    """Exact RTRL of linear recurrent trace units and of linear recurrent units."""
    if row.method != "rtrl" or row.cell not in ("rtu", "diagonal"):
        return {}
    from src.nets.lru.online_lru import OnlineLRUCell
    from src.nets.rtus.linear_rtus import RealTimeLinearRTUs

    ours, n = params_of(row), row.units
    first, second = ours["input"][:, :n], ours["input"][:, n:]
    decay, angle = ours["decay"][None], ours["angle"][None]

    def zeros(dtype: Any, *shapes: tuple[int, ...]) -> tuple[jax.Array, ...]:
        return tuple(jnp.zeros((row.lanes, *shape), dtype) for shape in shapes)

    if row.cell == "rtu":
        cell, inner = RealTimeLinearRTUs(n), "FwdRealTimeLinearRTUs_0"
        params = {"r_param": decay, "theta_param": angle}
        params |= {"wx1": {"kernel": first}, "wx2": {"kernel": second}}
        state = zeros(float, (n,), (n,)), zeros(float, *[(n,)] * 4, *[(INPUTS, n)] * 4)
    else:
        cell, inner = OnlineLRUCell(n), "FwdOnlineLRU_0"
        params = {"nu_log": decay, "theta_log": angle, "gamma_log": ours["scale"][None]}
        params |= {"B_real": first.T, "B_img": second.T}
        state = zeros(complex, (n,))[0], zeros(complex, (n,), (n,), (n, INPUTS))

    def loss(params: Any, state: Any, x: Any) -> Any:
        state, out = cell.apply({"params": {inner: params}}, state, x)
        return 0.5 * sum(jnp.sum(jnp.abs(part) ** 2) for part in jax.tree.leaves(out)), state

    return {NAME: differentiated(loss, params, state, row)}
