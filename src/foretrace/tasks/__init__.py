"""Tasks: endless streams as pure functions that run inside scan."""

from foretrace.tasks._task import BITS, SQUARED, Example, Loss, Task, cross_entropy, squared_error
from foretrace.tasks.adding import AddingState, adding
from foretrace.tasks.anbn import AnbnState, anbn
from foretrace.tasks.balance import BalanceState, balance
from foretrace.tasks.brackets import BracketsState, brackets
from foretrace.tasks.copy import CopyState, copy
from foretrace.tasks.rotation import RotationState, rotation
from foretrace.tasks.text import Corpus, TextState, read_text, text

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
