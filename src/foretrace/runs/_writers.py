"""A run's numbers in TensorBoard, beside its folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from foretrace._checks import import_extra


class TensorBoard:
    """Event files for TensorBoard; nothing is written before the first number."""

    def __init__(self, folder: Path):
        """Keeps them in a folder.

        Raises:
            UserError: tensorboardX is not installed.
        """
        self._module, self._folder = import_extra("tensorboardX", "tensorboard"), folder
        self._events: Any = None

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds one point to every curve."""
        self._events = self._events or self._module.SummaryWriter(str(self._folder))
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes the file."""
        if self._events:
            self._events.close()


def scalars(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a record of `run`, `info` as `info/NAME`; of several seeds, `NAME/SEED`."""
    return dict(_flat("", {key: value for key, value in record.items() if key not in ("step", "raised")}))


def _flat(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(f"{name}/{key}" if name else key, item)
    elif np.ndim(value):
        for index, item in enumerate(value):
            yield from _flat(f"{name}/{index}", item)
    else:
        yield name, float(value)
