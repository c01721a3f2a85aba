"""Tasks: endless streams as pure functions that run inside scan."""

from foretrace.tasks._adding import AddingState, adding
from foretrace.tasks._anbn import AnbnState, anbn
from foretrace.tasks._balance import BalanceState, balance
from foretrace.tasks._brackets import BracketsState, brackets
from foretrace.tasks._copy import CopyState, copy
from foretrace.tasks._rotation import RotationState, rotation
from foretrace.tasks._task import BITS, SQUARED, Example, Loss, Task, cross_entropy, squared_error
from foretrace.tasks._text import Corpus, TextState, read_text, text

__all__ = [
    "BITS",
    "SQUARED",
    "AddingState",
    "AnbnState",
    "BalanceState",
    "BracketsState",
    "CopyState",
    "Corpus",
    "Example",
    "Loss",
    "RotationState",
    "Task",
    "TextState",
    "adding",
    "anbn",
    "balance",
    "brackets",
    "copy",
    "cross_entropy",
    "read_text",
    "rotation",
    "squared_error",
    "text",
]
