"""What is there to learn? Tasks: endless streams as pure functions that run inside scan."""

from foretrace.tasks import _adding, _anbn, _balance, _brackets, _copy, _rotation, _text
from foretrace.tasks._adding import AddingState, adding
from foretrace.tasks._anbn import AnbnState, anbn
from foretrace.tasks._balance import BalanceState, balance
from foretrace.tasks._brackets import BracketsState, brackets
from foretrace.tasks._copy import CopyState, copy
from foretrace.tasks._rotation import RotationState, rotation
from foretrace.tasks._task import (
    BITS,
    BITS_PER_BYTE,
    SQUARED,
    Example,
    Loss,
    Metric,
    Task,
    TaskSpec,
    cross_entropy,
    squared_error,
)
from foretrace.tasks._text import Corpus, TextState, read_text, text

# By name, in the order of the usage line. A new task is one file, and one word here.
TASKS: dict[str, TaskSpec] = {
    module.SPEC.name: module.SPEC
    for module in (_copy, _text, _anbn, _brackets, _adding, _rotation, _balance)
}

__all__ = [
    "BITS",
    "BITS_PER_BYTE",
    "SQUARED",
    "TASKS",
    "AddingState",
    "AnbnState",
    "BalanceState",
    "BracketsState",
    "CopyState",
    "Corpus",
    "Example",
    "Loss",
    "Metric",
    "RotationState",
    "Task",
    "TaskSpec",
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
