"""PyTorch: back-propagation through windows, by its own recurrent layer."""

from typing import Any

import numpy as np
from rows import INPUTS, STEPS, WINDOW, Contender, Row, inputs_of

NAME = "PyTorch"
PACKAGE = "torch"


def contenders(row: Row) -> dict[str, Contender]:
    """`torch.nn.RNN` over every window, and one backward pass through it."""
    if not row.method.startswith("tbptt"):
        return {}
    import torch

    torch.set_num_threads(1)  # on a busy machine the second one costs more than it brings
    layer = torch.nn.RNN(INPUTS, row.units)
    windows = torch.tensor(np.array(inputs_of(row, WINDOW)))

    def run(hidden: Any) -> Any:
        for _ in range(STEPS // WINDOW):
            outputs, hidden = layer(windows, hidden.detach())
            outputs.sum().backward()  # which adds to the gradients that are there
        return hidden

    return {NAME: Contender(run, torch.zeros(1, row.lanes, row.units), STEPS)}
