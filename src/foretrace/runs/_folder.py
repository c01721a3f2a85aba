"""The folder of one run: its configuration, its metrics and the checkpoints it continues from."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from foretrace._checks import UserError
from foretrace.runs import checkpoint
from foretrace.runs._lock import RunError, lock
from foretrace.runs._signals import Stop

# What may differ when a run goes on: where it is, how it was called, when it saves, what it shows.
_FREE = frozenset(
    (
        "out",
        "command",
        "resume",
        "checkpoint_every",
        "on_nonfinite",
        "versions",
        "tensorboard",
        "wandb",
        "gaps",
    )
)
_FREE_FILES = frozenset({"file", "valid", "test"})  # bound by their checksums


class Rhythm(NamedTuple):
    """How often a run is saved: every so many steps or every so many minutes; the other is None."""

    steps: int | None
    minutes: float | None

    @classmethod
    def parse(cls, text: str) -> "Rhythm":
        """Reads `100000` as steps and `10m` as minutes.

        Raises:
            ValueError: if it is neither.
        """
        if re.fullmatch(r"0*[1-9]\d{0,14}", text):
            return cls(int(text), None)
        if re.fullmatch(r"\d{1,9}(\.\d+)?m", text) and float(text[:-1]) > 0:
            return cls(None, float(text[:-1]))
        raise UserError(
            f"checkpoint_every must be steps, such as 100000, or minutes, such as 10m; got {text!r}; "
            f"10m is the default."
        )


class RunFolder:
    """The folder of one run, while this process holds it; made by `claim`.

    Attributes:
        path: where it is.
        config: what is run, as JSON.
        saved: the step of the newest checkpoint, or None.
    """

    def __init__(self, path: Path, config: dict[str, Any], rhythm: Rhythm, lines: str):
        self.path, self.config, self._rhythm, self._lines = path, config, rhythm, lines
        self._bound = bound(config)
        self._bytes, self._hash = 0, hashlib.sha256()
        self.saved: int | None = None
        self._time = time.monotonic()

    @property
    def metrics(self) -> Path:
        """The file that grows line by line."""
        return self.path / self._lines

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def append(self, record: dict[str, Any]) -> None:
        """Appends a line of JSON."""
        self.write(json.dumps(record) + "\n")

    def write(self, lines: str) -> None:
        """Appends whole lines to the file, which is there unless someone took it away."""
        data = lines.encode()
        with _existing(self.metrics) as file:
            file.write(data)
        self._bytes += len(data)
        self._hash.update(data)

    def records(self) -> list[dict[str, Any]]:
        """All lines of the metrics."""
        return [json.loads(line) for line in self.metrics.read_text().splitlines()]

    def due(self, step: int) -> bool:
        """Whether it is time to save."""
        if self._rhythm.steps is not None:
            return step - (self.saved or 0) >= self._rhythm.steps
        return time.monotonic() - self._time >= 60 * (self._rhythm.minutes or 0)

    def follow(
        self, chunks: Iterator[tuple[Any, dict[str, Any]]], stop: Stop, loss: str
    ) -> Iterator[dict[str, Any]]:
        """Writes down a run while it advances: the metrics, and now and then what it continues from.

        Args:
            chunks: carry and record at the start, and after every chunk (see `advance`).
            stop: with a signal, the run ends after its chunk.
            loss: name of the loss, by which a checkpoint is called the best.

        Yields:
            The records that are new.

        Raises:
            NonFiniteError: by the chunks; what was good is saved.
        """
        carry, record = next(chunks)
        self.save(carry, record, loss)
        try:
            while stop.signal is None and (step := next(chunks, None)):
                carry, record = step
                self.append(record)
                yield record
                if self.due(record["step"]):
                    self.save(carry, record, loss)
        except ArithmeticError:
            self.save(carry, record, loss)
            raise
        self.save(carry, record, loss)

    def save(self, carry: Any, record: dict[str, Any], loss: str) -> None:
        """Saves all that continues, with the last record; does nothing if that step is saved.

        Args:
            carry: the pytree.
            record: its `step` numbers the checkpoint.
            loss: name of the loss; the checkpoint where it is least is kept as the best.
        """
        if record["step"] == self.saved:
            return
        with _existing(self.metrics) as file:
            os.fsync(file.fileno())
        checkpoint.save(
            self.checkpoints,
            carry,
            step=record["step"],
            loss=record.get(loss),
            info={
                "record": record,
                "metrics": {"bytes": self._bytes, "sha256": self._hash.hexdigest()},
                "config": self._bound,
                "config_sha256": checkpoint.hash_of(self._bound),
            },
        )
        self.saved, self._time = record["step"], time.monotonic()

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest checkpoint that is whole and its record; metrics are cut to where they were then.

        Returns:
            None if nothing was saved yet, and the run begins anew.

        Raises:
            ValueError: if it was saved with another configuration.
            CheckpointError: if there are checkpoints, but none is whole.
        """
        if not checkpoint.steps(self.checkpoints):
            self.metrics.write_bytes(b"")
            return None
        found = checkpoint.restore(self.checkpoints, like)
        _refuse_other(self.path, found.info["config"], self._bound)
        size, sha256 = found.info["metrics"]["bytes"], found.info["metrics"]["sha256"]
        data = self.metrics.read_bytes()[:size] if self.metrics.exists() else b""
        if hashlib.sha256(data).hexdigest() != sha256:
            warnings.warn(
                f"{str(self.metrics)!r} is not what it was when step {found.step:,} was saved; its whole "
                f"lines are kept",
                checkpoint.CheckpointWarning,
                stacklevel=2,
            )
            data = data[: data.rfind(b"\n") + 1]
        with self.metrics.open("ab") as file:
            file.truncate(len(data))
        self._bytes, self._hash = len(data), hashlib.sha256(data)
        self.saved = found.step
        return found.tree, found.info["record"]


@contextlib.contextmanager
def claim(
    path: Path, config: dict[str, Any], rhythm: Rhythm, *, resume: bool, lines: str = "metrics.jsonl"
) -> Iterator[RunFolder]:
    """Locks a run folder, created, and writes its `config.json`.

    Args:
        path: where.
        config: what is run, as JSON.
        rhythm: how often to save.
        resume: go on with the run that is there, if there is one.
        lines: name of the file that grows line by line.

    Raises:
        ValueError: if the folder cannot be used, holds a run and `resume` is false, or holds another run.
        RunError: if another process uses it; while in use, if it cannot be written any more.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error) from None
    with lock(path):
        try:
            there = read_config(path)
            if not resume and (there is not None or (path / "checkpoints").exists()):
                raise UserError(
                    f"out must be a folder without a run; got {str(path)!r}, which already holds one; "
                    f"go on with it by --resume, or choose another folder."
                )
            if there:
                _refuse_other(path, bound(there), bound(config))
                _warn_of_versions(there.get("versions", {}), config.get("versions", {}))
            checkpoint.replace_file(path / "config.json", (json.dumps(config, indent=2) + "\n").encode())
            (path / lines).touch()
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            yield RunFolder(path, config, rhythm, lines)
        except (RunError, checkpoint.CheckpointError):
            raise
        except OSError as error:
            raise RunError(
                f"run folder {str(path)!r} cannot be used any more: {error.strerror}; give it room and "
                f"permission, and go on from its newest checkpoint with foretrace resume."
            ) from error


def read_config(path: Path) -> dict[str, Any] | None:
    """The configuration of the run in a folder: None if there is none, empty if it cannot be read."""
    try:
        found = json.loads((path / "config.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def create_folder(path: Path, config: dict[str, Any]) -> None:
    """Creates the run folder with `config.json`: the configuration and the versions behind it.

    Raises:
        ValueError: if the folder holds a run already or cannot be written.
    """
    if (path / "config.json").exists():
        raise UserError(
            f"out must be a folder without a run; got {str(path)!r}, which already holds one; "
            f"choose another folder or remove that one."
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "config.json", config | {"versions": versions()})
    except OSError as error:
        raise UserError(
            f"out must be a folder that can be written; got {str(path)!r}: {error.strerror}; "
            f"choose another folder."
        ) from None


def versions() -> dict[str, str]:
    """What a run depends on beside its configuration."""
    found = {name: importlib.metadata.version(name) for name in ("foretrace", "jax", "optax")}
    return found | {"python": platform.python_version(), "device": jax.devices()[0].device_kind}


def write_json(path: Path, content: Any) -> None:
    """Writes one JSON document for people to read."""
    path.write_text(json.dumps(content, indent=2) + "\n")


def append_json(path: Path, record: dict[str, Any]) -> None:
    """Appends one line of JSON."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def bound(config: dict[str, Any]) -> dict[str, Any]:
    """What has to be the same for a run to go on; of foretrace's version the first two numbers."""
    version = str(config.get("versions", {}).get("foretrace")).split(".")[:2]
    found = {name: value for name, value in config.items() if name not in _FREE | _FREE_FILES}
    return found | {"foretrace": ".".join(version)}


def _refuse_other(path: Path, there: dict[str, Any], now: dict[str, Any]) -> None:
    differ = [
        f"{name}: {there.get(name, 'nothing')} there, {now.get(name, 'nothing')} now"
        for name in dict.fromkeys([*there, *now])
        if there.get(name) != now.get(name)
    ]
    if differ:
        raise UserError(
            f"options must be those of the run in {str(path)!r}; got others ({'; '.join(differ)}); "
            f"foretrace resume takes them from there."
        )


def _warn_of_versions(there: dict[str, Any], now: dict[str, Any]) -> None:
    differ = [
        f"{name} {there.get(name)} there, {now[name]} now" for name in now if now[name] != there.get(name)
    ]
    if differ:
        warnings.warn(
            f"the run was made elsewhere ({'; '.join(differ)}); it goes on, but not bit for bit",
            checkpoint.CheckpointWarning,
            stacklevel=2,
        )


def _existing(path: Path):
    """Opens a file to append to it, without making one in a folder that was taken away."""
    return open(os.open(path, os.O_WRONLY | os.O_APPEND), "ab")


def _unusable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"out must be a folder that can be written; got {str(path)!r}: {error.strerror}; choose another "
        f"folder."
    )
