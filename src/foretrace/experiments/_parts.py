"""Finished parts of an experiment, kept so that one that was cut off can go on."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from foretrace.checkpoint import replace_file


class Parts:
    """Computes every part once, interruptions or not: `part(name, make)` is `make()`, or what it was."""

    def __init__(self, path: Path | None, stamp: Any) -> None:
        """Reads what an earlier attempt kept.

        Args:
            path: file of the finished parts; nothing is kept without one.
            stamp: settings and versions, JSON-able; parts that were made with others are ignored.
        """
        self._path, self._start = path, time.perf_counter()
        self._kept: dict[str, Any] = {"stamp": plain(stamp), "seconds": 0.0, "parts": {}}
        try:
            found = json.loads(path.read_text()) if path else {}
            if found.keys() == self._kept.keys() and found["stamp"] == self._kept["stamp"]:
                self._kept = found
        except (OSError, ValueError, AttributeError):
            pass
        self._before = self._kept["seconds"]

    def __call__(self, name: str, make: Callable[[], Any]) -> Any:
        """The part of that name, as plain lists and numbers."""
        parts = self._kept["parts"]
        if name not in parts:
            parts[name] = plain(make())
            self._kept["seconds"] = self.seconds
            if self._path:
                replace_file(self._path, json.dumps(self._kept).encode())
        return parts[name]

    @property
    def seconds(self) -> float:
        """Time spent so far, with what earlier attempts spent on the parts they finished."""
        return self._before + time.perf_counter() - self._start

    def __len__(self) -> int:
        return len(self._kept["parts"])


def plain(value: Any) -> Any:
    """What JSON can hold: lists, dictionaries and numbers, floats to six digits."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, list | tuple) or np.ndim(value):
        return [plain(item) for item in value]
    if isinstance(value, int | np.integer):
        return int(value)
    # Ratios and slopes of 32-bit measurements need no more.
    return float(f"{float(value):.6g}")
