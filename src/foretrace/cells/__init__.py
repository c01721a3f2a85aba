"""What are the dynamics? Recurrent cells, one a file: how the hidden state of one example moves."""

from collections.abc import Callable

from foretrace._types import Cell
from foretrace.cells._cell import cell
from foretrace.cells._diagonal import diagonal
from foretrace.cells._elstm import elstm
from foretrace.cells._gru import gru
from foretrace.cells._gtu import gtu
from foretrace.cells._highway import highway
from foretrace.cells._leaky import leaky
from foretrace.cells._lstm import LSTMHidden, lstm
from foretrace.cells._mingru import mingru
from foretrace.cells._rnn import rnn
from foretrace.cells._rtu import rtu
from foretrace.cells._stack import StackHidden, stack

# The cells that a command or an estimator can be asked for by name: (hidden, inputs, ..) -> cell.
CELLS: dict[str, Callable[..., Cell]] = {
    factory.__name__: factory
    for factory in (diagonal, elstm, gru, gtu, highway, leaky, lstm, mingru, rnn, rtu)
}

__all__ = [
    "CELLS",
    "LSTMHidden",
    "StackHidden",
    "cell",
    "diagonal",
    "elstm",
    "gru",
    "gtu",
    "highway",
    "leaky",
    "lstm",
    "mingru",
    "rnn",
    "rtu",
    "stack",
]
