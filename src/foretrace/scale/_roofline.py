"""The roofline of a plain recurrent network on n devices, in formulas: what each holds, computes and sends.

For `rnn`, float32, with S units, P parameters, L lanes, rank R, as many probes, blocks of k steps, divided
by columns over n devices. What is sent is that of the compiled program, which `tests/test_scale.py` reads;
cells of several gates send more, since a product of their state Jacobians takes a sum for every gate.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from foretrace.cells import rnn
from foretrace.learners import Explanation, analyse, parse
from foretrace.scale._plan import Plan

_NUMBER = 4  # bytes


class Sizes(NamedTuple):
    """S, inputs, L, R, k and n, as above."""

    state: int
    inputs: int
    lanes: int
    rank: int
    block: int
    devices: int

    @property
    def parameters(self) -> int:
        """P."""
        return (self.state + self.inputs + 1) * self.state


def _window(sizes: Sizes, blocks: int) -> float:
    """Numbers of the window: of each step the weights once, and input factor and slope of every lane."""
    residuals = 2 * sizes.state + sizes.inputs + 1
    steps = blocks * sizes.block
    return steps * (sizes.state**2 / sizes.devices + sizes.lanes * residuals)


def _held(sizes: Sizes) -> dict[str, float]:
    each, lanes, rank = sizes.parameters / sizes.devices, sizes.lanes, sizes.rank
    factor = sizes.state + sizes.inputs + 1
    return {
        "low_rank": each + _window(sizes, 2) + lanes * rank * (each + sizes.state),
        "ok": each + _window(sizes, 1) + lanes * rank * (factor + sizes.state**2 / sizes.devices),
        "rtrl": each + _window(sizes, 1) + lanes * sizes.state * each,
    }


def _sent(sizes: Sizes) -> dict[str, float]:
    k, rank, share = sizes.block, sizes.rank, 1 - 1 / sizes.devices
    vectors = sizes.lanes * sizes.state
    # A way back through half a block in the mean, each step of which is a sum over the devices; and at the
    # block's end a product of state Jacobians, gathered after each of its steps.
    products = share * (vectors * sizes.state * (1 + 1 / k) + vectors * (k + 1))
    credits = 4 * (2 * rank + 1) + 3 * k + 1 + 3 * 2 * rank + 2 * rank + 8
    return {"low_rank": share * vectors * credits, "ok": products, "rtrl": products}


def roofline(learner: str, sizes: Sizes) -> Plan:
    """What one of n devices holds, computes and sends in a step of `low_rank`, `ok` or `rtrl`.

    Args:
        learner: one of these.
        sizes: of the network and the mesh.
    """
    number = f":{sizes.rank}" if learner != "rtrl" else ""
    name = f"{learner}{number}/{sizes.block}"
    operations = (
        _network(sizes.state, sizes.inputs).cost(parse(name), lanes=sizes.lanes).operations / sizes.devices
    )
    held, sent = (values[learner] * _NUMBER for values in (_held(sizes), _sent(sizes)))
    return Plan(name, int(held), 0, operations, sent)


@cache
def _network(state: int, inputs: int) -> Explanation:
    """A large cell takes seconds to analyse, and a table has it in every row."""
    return analyse(rnn(hidden=state, inputs=inputs))


def table(
    learners: tuple[str, ...], at: Callable[[int], Sizes], devices: tuple[int, ...], seconds: Callable
) -> list[tuple[str, ...]]:
    """Rows of a table, a heading first: for each learner and number of devices what limits a step.

    Args:
        learners: names.
        at: the sizes for a number of devices.
        devices: numbers of them.
        seconds: `(plan) -> {limit: seconds}`, as `Plan.seconds` of a device.
    """
    rows: list[tuple[str, ...]] = [
        ("learner", "devices", "held", "sent", "compute", "memory", "links", "limit")
    ]
    for learner in learners:
        for count in devices:
            plan = roofline(learner, at(count))
            times = seconds(plan)
            rows.append(
                (
                    plan.learner,
                    f"{count}",
                    f"{plan.held / 1e9:,.2f} GB",
                    f"{plan.sent / 1e6:,.1f} MB",
                    *(f"{time * 1e6:,.1f} us" for time in times.values()),
                    max(times, key=lambda name: times[name]),
                )
            )
    return rows
