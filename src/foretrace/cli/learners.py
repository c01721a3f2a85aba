"""`foretrace learners`: all learners and what they claim, as one table."""

import dataclasses
from collections.abc import Sequence

from foretrace._format import columns
from foretrace.cli._parse import parse
from foretrace.learners._catalogue._recommend import table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learners:
    """List all learners: what each keeps of the influence matrix, what it claims and what it costs.

    S is the size of the hidden state, P the number of parameters, F and Z the lengths of the input factor
    and of the pre-activation of a group of weights, R the rank, K the entries of the state that a parameter
    reaches. Memory is beside that of a window, time per step for block 1.
    """


def run(words: Sequence[str]) -> None:
    """Prints the table."""
    parse(Learners, words, "foretrace learners")
    print(*columns(table()), sep="\n")
