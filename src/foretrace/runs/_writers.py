"""Where a run's numbers go beside its folder: TensorBoard and Weights & Biases."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from foretrace._checks import UserError


@runtime_checkable
class Writer(Protocol):
    """Something that keeps numbers over time steps."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Keeps the numbers of one time step."""
        ...

    def close(self) -> None:
        """Waits until all of them are kept."""
        ...


class TensorBoard:
    """Event files for TensorBoard; nothing is written before the first number."""

    def __init__(self, folder: Path):
        """Keeps them in a folder.

        Raises:
            ValueError: tensorboardX is not installed.
        """
        module = _imported("tensorboardX", "tensorboard", "pip install 'foretrace[tensorboard]'")
        self._make, self._events = lambda: module.SummaryWriter(str(folder)), None

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds one point to every curve."""
        self._events = self._events or self._make()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes the file."""
        if self._events:
            self._events.close()


class WeightsAndBiases:
    """A run of Weights & Biases, in the project that WANDB_PROJECT names; begun at the first number."""

    def __init__(self, folder: Path, config: dict[str, Any]):
        """Names the run after its folder.

        Raises:
            ValueError: wandb is not installed.
        """
        module = _imported("wandb", "wandb", "pip install wandb")
        self._make = lambda: module.init(dir=str(folder), name=folder.name, config=config)
        self._run = None

    def write(self, step: int, values: dict[str, float]) -> None:
        """Logs one step."""
        self._run = self._run or self._make()
        self._run.log(values, step=step)

    def close(self) -> None:
        """Finishes the run."""
        if self._run:
            self._run.finish()


def _imported(package: str, option: str, remedy: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(f"{option} must be left out without {package}; got --{option}; {remedy}.") from None


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
