"""Recurrent cells: the dynamics of one example."""

from foretrace.cells._cell import cell
from foretrace.cells.gru import gru
from foretrace.cells.highway import highway
from foretrace.cells.lstm import LSTMHidden, lstm
from foretrace.cells.rnn import rnn

__all__ = ["LSTMHidden", "cell", "gru", "highway", "lstm", "rnn"]
