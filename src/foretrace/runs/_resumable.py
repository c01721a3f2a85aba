"""Finished parts of an experiment, kept so that one that was cut off can go on."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from foretrace.runs.checkpoint import hash_of, replace_file, restore, save, steps

_OFTEN = 600.0  # seconds; so much of a long part is lost at most


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

    def long(self, name: str, make: Callable[["Progress"], Any]) -> Any:
        """A part that may take hours: `make` is told where to keep how far it is."""
        folder = _unfinished(self._path) / hash_of([self._kept["stamp"], name]) if self._path else None
        found = self(name, lambda: make(Progress(self, folder)))
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        return found

    @property
    def seconds(self) -> float:
        """Time spent so far, with what earlier attempts spent on what is kept of them."""
        return self._before + time.perf_counter() - self._start

    def spent(self, seconds: float) -> None:
        """Counts what an earlier attempt had spent when it kept an unfinished part."""
        self._before += seconds - self._kept["seconds"]

    def __len__(self) -> int:
        return len(self._kept["parts"])


class Progress:
    """How far a long part is, in a folder of its own; nowhere without one."""

    def __init__(self, parts: Parts, folder: Path | None) -> None:
        self._parts, self._folder, self._saved = parts, folder, time.monotonic()

    def load(self, like: Any) -> tuple[Any, list] | None:
        """The pytree and the list that were kept last, if any; the tree has leaves like `like`'s."""
        if not (self._folder and steps(self._folder)):
            return None
        tree, _, info = restore(self._folder, like)
        self._parts.spent(info["seconds"])
        return tree, info["seen"]

    def keep(self, tree: Any, seen: list) -> None:
        """Keeps a pytree and a JSON-able list, if that was not done for ten minutes."""
        if self._folder and time.monotonic() - self._saved >= _OFTEN:
            save(self._folder, tree, keep=1, info={"seen": seen, "seconds": self._parts.seconds})
            self._saved = time.monotonic()


def forget(path: Path) -> None:
    """Removes the file of finished parts, and what is beside it of unfinished ones."""
    path.unlink(missing_ok=True)
    shutil.rmtree(_unfinished(path), ignore_errors=True)


def _unfinished(path: Path) -> Path:
    return path.with_suffix("")


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
