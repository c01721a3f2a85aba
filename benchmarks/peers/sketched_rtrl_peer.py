"""SK-RTRL by its authors (Yi and Wang, 2026), which no package index has, in PyTorch.

A clone of github.com/sonaradarcn/sketched-rtrl on PYTHONPATH. Steps are those of its own training loop,
without the readout, whose operations PyTorch calls one by one. Its gradient is the mean over lanes, where
that of foretrace is the sum. Its loop forms the Jacobian of the state for every method, RFLO too, and its
SnAp-1 bounds its own error in every step. Leaky units are a cell in its protocol.

Of what is new in a step, SK-RTRL keeps four directions, from a decomposition of a matrix as large as the
recurrence; `sketch` finds its directions without one. Both are exact where the rank is the number of units.
There are two kernels with the same result, the second of which puts rotations off: both are timed.
"""

from typing import Any

import numpy as np
from ours import params_of
from rows import INPUTS, LEAK, WINDOW, Contender, Row, inputs_of

NAME = "sketched-rtrl"
PACKAGE = "skrtrl.train"
# RFLO of leaky units is e-prop too.
_ALGORITHMS = {"rflo": ("rflo",), "eprop": ("rflo",), "snap:1": ("snap1",), "uoro": ("uoro",)}
_ALGORITHMS["sketch:16"] = "skrtrl-r16", "am-skrtrl-r16"


def contenders(row: Row) -> dict[str, Contender]:
    """SK-RTRL, and RFLO, SnAp-1 and UORO, which are its baselines."""
    names = _ALGORITHMS.get(row.method, ())
    labels = NAME, f"{NAME}, amortised"
    return {label: _steps(row, name) for label, name in zip(labels, names, strict=False)}


def _steps(row: Row, name: str) -> Contender:
    import torch
    from skrtrl.cells import TanhRNNCell
    from skrtrl.train import make_algo

    torch.set_num_threads(1)  # on a busy machine the second one costs more than it brings

    class Leaky(TanhRNNCell):
        """Leaky tanh units, as `foretrace.cells.leaky`."""

        def forward(self, x: Any, h_prev: Any) -> Any:
            return (1 - LEAK) * h_prev + LEAK * super().forward(x, h_prev)

        def jac_pieces(self, x: Any, h_prev: Any, h: Any) -> Any:
            out = (h - (1 - LEAK) * h_prev) / LEAK
            slope = LEAK * (1 - out**2)[..., None]
            factors = torch.cat([h_prev, x, torch.ones(len(x), 1)], dim=1)
            jacobian = slope * self.W
            jacobian.diagonal(dim1=1, dim2=2).add_(1 - LEAK)
            return jacobian, slope * factors[:, None]

    cell = {"leaky": Leaky, "rnn": TanhRNNCell}[row.cell](INPUTS, row.units)
    ours = {key: torch.tensor(np.array(a).T) for key, a in params_of(row).items()}
    cell.load_state_dict({"W": ours["recurrent"], "U": ours["input"], "b": ours["bias"]})
    algorithm = make_algo(name, cell, row.lanes)
    xs = torch.tensor(np.array(inputs_of(row, WINDOW)))

    @torch.no_grad()
    def run(carry: Any) -> Any:
        hidden, cell = carry
        for x in xs:
            before, hidden = hidden, cell(x, hidden)
            algorithm.step_state(*cell.jac_pieces(x, before, hidden))
            cell.apply_flat_grad(algorithm.grad_rows(hidden))  # which adds to the gradients that are there
        return hidden, cell

    return Contender(run, (cell.init_state(row.lanes), cell), WINDOW)
