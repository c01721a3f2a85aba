"""Recurrent cells: the dynamics of one example."""

from foretrace.cells._cell import cell
from foretrace.cells.diagonal import diagonal
from foretrace.cells.elstm import elstm
from foretrace.cells.gru import gru
from foretrace.cells.highway import highway
from foretrace.cells.lstm import LSTMHidden, lstm
from foretrace.cells.rnn import rnn
from foretrace.cells.rtu import rtu

__all__ = ["LSTMHidden", "cell", "diagonal", "elstm", "gru", "highway", "lstm", "rnn", "rtu"]
