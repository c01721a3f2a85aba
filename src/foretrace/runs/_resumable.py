"""Finished parts of a long computation, kept on disk so that an interrupted one goes on."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from foretrace._checks import checked_path
from foretrace.runs.checkpoint import hash_of, replace_file, restore, save, steps

_OFTEN = 600.0  # seconds; so much of a long part is lost at most


class PartCache:
    """Computes every part once: `part(name, compute)` is `compute()`, or its earlier result."""

    def __init__(self, path: Path | None, stamp: Any) -> None:
        """Reads the parts of an earlier attempt.

        Args:
            path: file of the finished parts; nothing is kept without one.
            stamp: settings and versions, JSON-able; parts that were computed with others are ignored.
        """
        self._path, self._start = path, time.perf_counter()
        self._content: dict[str, Any] = {"stamp": to_json(stamp), "seconds": 0.0, "parts": {}}
        try:
            old = json.loads(path.read_text()) if path else {}
            if old.keys() == self._content.keys() and old["stamp"] == self._content["stamp"]:
                self._content = old
        except (OSError, ValueError, AttributeError):
            pass
        self._before = self._content["seconds"]

    def __call__(self, name: str, compute: Callable[[], Any]) -> Any:
        """The part of that name, as plain lists and numbers."""
        parts = self._content["parts"]
        if name not in parts:
            parts[name] = to_json(compute())
            self._content["seconds"] = self.seconds
            if self._path:
                with checked_path("out", self._path, "a file that can be written", "choose another folder"):
                    replace_file(self._path, json.dumps(self._content).encode())
        return parts[name]

    def long(self, name: str, compute: Callable[["Progress"], Any]) -> Any:
        """A part that may take hours: `compute` keeps its own progress in its argument."""
        folder = _unfinished(self._path) / hash_of([self._content["stamp"], name]) if self._path else None
        result = self(name, lambda: compute(Progress(self, folder)))
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        return result

    @property
    def seconds(self) -> float:
        """Time spent so far, with the time that earlier attempts spent on the parts that are kept."""
        return self._before + time.perf_counter() - self._start

    def spent(self, seconds: float) -> None:
        """Counts the time that an earlier attempt had spent when it kept an unfinished part."""
        self._before += seconds - self._content["seconds"]

    def __len__(self) -> int:
        return len(self._content["parts"])


class Progress:
    """The progress of a long part, in a folder of its own; nowhere without one."""

    def __init__(self, parts: PartCache, folder: Path | None) -> None:
        self._parts, self._folder, self._saved = parts, folder, time.monotonic()

    def load(self, like: Any) -> tuple[Any, list] | None:
        """The pytree and the list that were kept last, if any; the tree has leaves like `like`'s."""
        if not (self._folder and steps(self._folder)):
            return None
        tree, _, info = restore(self._folder, like)
        self._parts.spent(info["seconds"])
        return tree, info["records"]

    def keep(self, tree: Any, records: list) -> None:
        """Keeps a pytree and a JSON-able list, if that was not done for ten minutes."""
        if self._folder and time.monotonic() - self._saved >= _OFTEN:
            save(self._folder, tree, keep=1, info={"records": records, "seconds": self._parts.seconds})
            self._saved = time.monotonic()


def remove(path: Path) -> None:
    """Removes the file of finished parts, and the folder of unfinished ones beside it."""
    path.unlink(missing_ok=True)
    shutil.rmtree(_unfinished(path), ignore_errors=True)


def _unfinished(path: Path) -> Path:
    return path.with_suffix("")


def to_json(value: Any) -> Any:
    """A value as lists, dictionaries and numbers, floats to six digits."""
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, list | tuple) or np.ndim(value):
        return [to_json(item) for item in value]
    if isinstance(value, int | np.integer):
        return int(value)
    # Ratios and slopes of 32-bit measurements need no more.
    return float(f"{float(value):.6g}")
