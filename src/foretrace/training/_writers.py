"""Where a run's numbers go beside its folder: TensorBoard and Weights & Biases."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Writer(Protocol):
    """Something that keeps numbers over time steps."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Keeps the numbers of one time step."""
        ...

    def close(self) -> None:
        """Waits until all of them are kept."""
        ...


class TensorBoard:
    """Event files for TensorBoard."""

    def __init__(self, folder: Path):
        """Opens a folder.

        Raises:
            ValueError: tensorboardX is not installed.
        """
        try:
            module = importlib.import_module("tensorboardX")
        except ImportError:
            raise ValueError(
                "tensorboard must be left out without tensorboardX; got --tensorboard; "
                "pip install 'foretrace[tensorboard]'."
            ) from None
        self._events = module.SummaryWriter(str(folder))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds one point to every curve."""
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes the file."""
        self._events.close()


class WeightsAndBiases:
    """A run of Weights & Biases, in the project `foretrace` unless WANDB_PROJECT says otherwise."""

    def __init__(self, folder: Path, config: dict[str, Any]):
        """Starts the run.

        Raises:
            ValueError: wandb is not installed.
        """
        try:
            module = importlib.import_module("wandb")
        except ImportError:
            raise ValueError(
                "wandb must be left out without the package wandb; got --wandb; pip install wandb."
            ) from None
        self._run = module.init(dir=str(folder), name=folder.name, config=config)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Logs one step."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Finishes the run."""
        self._run.finish()


def scalars(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a record of `run`, `info` as `info/NAME`; of several seeds, `NAME/SEED`."""
    return {name: value for name, value in _flat("", record) if not name.startswith(("step", "raised"))}


def _flat(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(f"{name}/{key}" if name else key, item)
    elif np.ndim(value):
        for index, item in enumerate(value):
            yield from _flat(f"{name}/{index}", item)
    else:
        yield name, float(value)
