"""Recurrent cells: the dynamics of one example."""

from foretrace.cells._cell import cell
from foretrace.cells.diagonal import diagonal
from foretrace.cells.elstm import elstm
from foretrace.cells.gru import gru
from foretrace.cells.highway import highway
from foretrace.cells.leaky import leaky
from foretrace.cells.lstm import LSTMHidden, lstm
from foretrace.cells.rnn import rnn
from foretrace.cells.rtu import rtu
from foretrace.cells.stack import StackHidden, stack

__all__ = [
    "LSTMHidden",
    "StackHidden",
    "cell",
    "diagonal",
    "elstm",
    "gru",
    "highway",
    "leaky",
    "lstm",
    "rnn",
    "rtu",
    "stack",
]
