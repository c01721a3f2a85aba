"""`foretrace explain`: the structure of a cell, and which learners fit it at what price."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import tyro

from foretrace import cells
from foretrace.cli._job import OptionalInt, check_network
from foretrace.cli._parse import parse
from foretrace.cli._tasks import CellName
from foretrace.learners import analyse, recommend


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explain:
    """Print which parameters of a cell factorise, and which learners fit it, with bytes and operations.

    Examples:
      foretrace explain gru --hidden 128 --inputs 10
      foretrace explain elstm --hidden 1024 --unbiased --memory 1000000
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


def run(words: Sequence[str]) -> None:
    """Prints both tables."""
    options = parse(Explain, words, "foretrace explain")
    cell = cells.CELLS[options.cell](hidden=options.hidden, inputs=options.inputs)
    check_network(cell)
    choices = recommend(cell, memory=options.memory, unbiased=options.unbiased, lanes=options.lanes)
    print(*analyse(cell).lines(), "", choices, sep="\n")
