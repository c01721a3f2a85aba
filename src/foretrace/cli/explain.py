"""`foretrace explain`: the structure of a cell, and which learners fit it at what price."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from foretrace import cells, scale
from foretrace._checks import UserError, check_positive_int
from foretrace._format import columns
from foretrace.cli._format import amount
from foretrace.cli._job import OptionalInt, check_network
from foretrace.cli._parse import parse
from foretrace.cli._tasks import CellName
from foretrace.learners import analyse, recommend
from foretrace.learners import parse as parse_learner
from foretrace.scale import _plan

if TYPE_CHECKING:
    DeviceName = str
else:
    DeviceName = Literal[tuple(_plan.DEVICES)]

_PLANNED = ("low_rank:8/16", "ok:8/16", "rtrl/16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explain:
    """Print which parameters of a cell factorise, and which learners fit it, with bytes and operations.

    With --mesh it plans past this machine: each --learner is compiled for so many virtual devices,
    from shapes alone, and bytes held and sent are read off the compiled program.

    Examples:
      foretrace explain gru --hidden 128 --inputs 10
      foretrace explain elstm --hidden 1024 --unbiased --memory 1000000
      foretrace explain gru --hidden 4096 --lanes 16 --mesh units=64 --device h200
    """

    cell: Annotated[CellName, tyro.conf.Positional]
    """The cell."""
    hidden: int = 32
    """Its units."""
    inputs: int = 4
    """Length of its input."""
    lanes: int = 1
    """Independent streams trained side by side."""
    memory: OptionalInt = None
    """Bytes that influence and window may take; any number unless given."""
    unbiased: bool = False
    """Only gradients that are right in the mean."""
    mesh: str | None = None
    """Devices to divide a network over, as lanes=2,units=4; they need not be here."""
    device: DeviceName = "h200"
    """With --mesh, the kind of the devices."""
    learner: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """With --mesh, a learner to plan, as foretrace train takes it. Repeat it. Unless given: low_rank:8/16,
    ok:8/16 and rtrl/16."""


def run(words: Sequence[str]) -> None:
    """Prints both tables."""
    options = parse(Explain, words, "foretrace explain")
    if options.mesh is not None:
        return _plan_for(options, scale.parse_mesh(options.mesh))
    if options.learner:
        raise UserError(f"learner must be left out without --mesh; got {options.learner[0]!r}; give both.")
    cell = cells.CELLS[options.cell](hidden=options.hidden, inputs=options.inputs)
    check_network(cell)
    choices = recommend(cell, memory=options.memory, unbiased=options.unbiased, lanes=options.lanes)
    print(*analyse(cell).lines(), "", choices, sep="\n")


def _plan_for(options: Explain, sizes: dict[str, int]) -> None:
    """Prints what each learner would hold, compute and send on every device of a mesh."""
    learners = [str(parse_learner(name)) for name in options.learner or _PLANNED]
    for name in ("hidden", "inputs", "lanes"):
        check_positive_int(name, getattr(options, name), "leave it out for the default")
    cell = {"name": options.cell, "hidden": options.hidden, "inputs": options.inputs}
    device = _plan.DEVICES[options.device]
    heading = ("learner", "held", "temporary", "FLOP per step", "sent per step")
    rows: list[tuple[str, ...]] = [(*heading, "compute", "memory", "links", "slowest")]
    for plan in _plan.plan_elsewhere(cell, learners, sizes, options.lanes):
        times = plan.seconds(device)
        amounts = [f"{amount(value)}B" for value in (plan.held, plan.temporary)]
        amounts += [amount(plan.operations), f"{amount(plan.sent)}B"]
        each = [f"{value * 1e6:,.1f} us" for value in times.values()]
        rows.append((plan.learner, *amounts, *each, max(times, key=lambda name: times[name])))
    count = sizes["lanes"] * sizes["units"]
    print(
        f"{count} devices ({options.device}), {sizes['lanes']} along lanes, {sizes['units']} along units; "
        f"{options.cell} of {options.hidden} units, {options.lanes} lanes",
        "of one device, by the data sheet and the compiled program; a step takes at least the slowest:",
        "",
        *columns(rows, right=tuple(range(1, 8))),
        sep="\n",
    )
