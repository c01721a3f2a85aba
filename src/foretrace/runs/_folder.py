"""The folder of one run: its metrics, and the checkpoints it continues from."""

import contextlib
import errno
import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from foretrace._checks import UserError, checked_path
from foretrace.runs import _together, checkpoint
from foretrace.runs._config import identity_of, read_config, refuse_other, versions, warn_of_versions
from foretrace.runs._lock import RunError, lock
from foretrace.runs._signals import StopSignal

# EDQUOT, a quota that is used up, is unknown to Windows.
_DISK = ("ENOSPC", "EDQUOT", "EIO", "EFBIG", "EROFS")
_OF_A_DISK = {getattr(errno, name) for name in _DISK if hasattr(errno, name)}


class SaveInterval(NamedTuple):
    """How often a run is saved: every so many steps or every so many minutes; the other is None."""

    steps: int | None
    minutes: float | None

    @classmethod
    def parse(cls, text: str) -> "SaveInterval":
        """Reads `100000` as steps and `10m` as minutes.

        Raises:
            UserError: it is neither.
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
    """The folder of one run, while this process holds it; made by `open_run`.

    Attributes:
        path: where it is.
        config: the configuration, as JSON.
        saved: the step of the newest checkpoint, or None.
        stopped: whether a signal ended the run, in this process or in another of the job.

    Of many processes the first alone writes lines; checkpoints they write together.
    """

    def __init__(self, path: Path, config: dict[str, Any], interval: SaveInterval, lines: str):
        self.path, self.config, self._interval, self._lines = path, config, interval, lines
        self._identity = identity_of(config)
        self._bytes, self._hash = 0, hashlib.sha256()
        self.saved: int | None = None
        self.stopped = False
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
        """Appends whole lines to the file; fails if it was removed, and does not create it again."""
        if not _together.is_first():
            return
        data = lines.encode()
        with _appending(self.metrics) as file:
            file.write(data)
        self._bytes += len(data)
        self._hash.update(data)

    def records(self) -> list[dict[str, Any]]:
        """All whole lines of the metrics."""
        return read_records(self.metrics)

    def rewrite(self, records: Sequence[dict[str, Any]]) -> None:
        """Replaces all lines of the metrics."""
        lines = "".join(json.dumps(record) + "\n" for record in records)
        checkpoint.replace_file(self.metrics, lines.encode())

    def due(self, step: int) -> bool:
        """Whether it is time to save."""
        if self._interval.steps is not None:
            return step - (self.saved or 0) >= self._interval.steps
        return time.monotonic() - self._time >= 60 * (self._interval.minutes or 0)

    def record(
        self, chunks: Iterator[tuple[Any, dict[str, Any]]], stop: StopSignal, loss: str
    ) -> Iterator[dict[str, Any]]:
        """Appends the record of every chunk to the metrics, and saves a checkpoint whenever one is due.

        Args:
            chunks: carry and record at the start, and after every chunk (see `advance`).
            stop: with a signal, the run ends after its chunk.
            loss: name of the loss; the checkpoint where it is least is kept as the best.

        Yields:
            The new records.

        Raises:
            NonFiniteError: by the chunks; the last good carry is saved.
        """
        carry, record = next(chunks)
        self.save(carry, record, loss)
        try:
            # All processes of a job stop and save at the same chunks.
            while not self._stops(stop) and (step := next(chunks, None)):
                carry, record = step
                self.append(record)
                yield record
                if _together.any_of(self.due(record["step"])):
                    self.save(carry, record, loss)
        except ArithmeticError:
            self.save(carry, record, loss)
            raise
        self.save(carry, record, loss)

    def _stops(self, stop: StopSignal) -> bool:
        self.stopped = _together.any_of(stop.signal is not None)
        return self.stopped

    def save(self, carry: Any, record: dict[str, Any], loss: str) -> None:
        """Saves all that continues, with the last record; does nothing if that step is saved.

        Args:
            carry: the pytree.
            record: its `step` numbers the checkpoint.
            loss: name of the loss; the checkpoint where it is least is kept as the best.
        """
        if record["step"] == self.saved:
            return
        if _together.is_first():
            with _appending(self.metrics) as file:
                os.fsync(file.fileno())
        checkpoint.save(
            self.checkpoints,
            carry,
            step=record["step"],
            loss=record.get(loss),
            info={
                "record": record,
                "metrics": {"bytes": self._bytes, "sha256": self._hash.hexdigest()},
                "config": self._identity,
                "config_sha256": checkpoint.hash_of(self._identity),
            },
        )
        self.saved, self._time = record["step"], time.monotonic()

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest checkpoint that is whole and its record; metrics are cut to where they were then.

        Returns:
            None if nothing was saved yet, and the run begins anew.

        Raises:
            UserError: it was saved with another configuration.
            CheckpointError: there are checkpoints, but none is whole.
        """
        if not checkpoint.steps(self.checkpoints):
            if _together.is_first():
                self.metrics.write_bytes(b"")
            return None
        newest = checkpoint.restore(self.checkpoints, like)
        refuse_other(self.path, newest.info["config"], self._identity)
        self.saved = newest.step
        if not _together.is_first():
            return newest.tree, newest.info["record"]
        size, sha256 = newest.info["metrics"]["bytes"], newest.info["metrics"]["sha256"]
        data = self.metrics.read_bytes()[:size] if self.metrics.exists() else b""
        if hashlib.sha256(data).hexdigest() != sha256:
            warnings.warn(
                f"{str(self.metrics)!r} is not what it was when step {newest.step:,} was saved; its whole "
                f"lines are kept",
                checkpoint.CheckpointWarning,
                stacklevel=2,
            )
            data = data[: data.rfind(b"\n") + 1]
        with self.metrics.open("ab") as file:
            file.truncate(len(data))
        self._bytes, self._hash = len(data), hashlib.sha256(data)
        return newest.tree, newest.info["record"]


@contextlib.contextmanager
def open_run(
    path: Path,
    config: dict[str, Any],
    interval: SaveInterval | None = None,
    *,
    resume: bool,
    lines: str = "metrics.jsonl",
) -> Iterator[RunFolder]:
    """Creates and locks a run folder, and writes `config.json`: configuration and versions.

    Args:
        path: where.
        config: the configuration, as JSON.
        interval: how often to save; ten minutes unless given.
        resume: go on with the run in the folder, if there is one.
        lines: name of the file that grows line by line.

    Raises:
        UserError: the folder cannot be used, holds a run and `resume` is false, or holds another run.
        RunError: another process uses it; while in use, it cannot be written any more.
    """
    config = {"versions": versions()} | config
    with contextlib.ExitStack() as held:

        def claim():
            with checked_path("out", path, "a folder that can be written", "choose another folder"):
                path.mkdir(parents=True, exist_ok=True)
                held.enter_context(lock(path))
                old = read_config(path)
                if not resume and (old is not None or (path / "checkpoints").exists()):
                    raise UserError(
                        f"out must be a folder without a run; got {str(path)!r}, which already holds one; "
                        f"go on with it by --resume, or choose another folder."
                    )
                if old:
                    refuse_other(path, identity_of(old), identity_of(config))
                    warn_of_versions(old.get("versions", {}), config["versions"])
                checkpoint.replace_file(path / "config.json", to_bytes(config))
                (path / lines).touch()

        _together.refuse_together(claim if _together.is_first() else lambda: None)
        try:
            yield RunFolder(path, config, interval or SaveInterval(None, 10), lines)
        except OSError as error:
            # An OSError that names no file of this run is a bug.
            if isinstance(error, UserError) or not _is_within(error, path):
                raise
            raise RunError(
                f"run folder {str(path)!r} cannot be used any more: {error.strerror}; give it room and "
                f"permission, and go on from its newest checkpoint with foretrace resume."
            ) from error


def read_records(metrics: Path) -> list[dict[str, Any]]:
    """All whole lines of a file of metrics: a process that was killed may have left half of one."""
    whole, _, _ = metrics.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def to_bytes(content: Any) -> bytes:
    """One JSON document for people to read."""
    return (json.dumps(content, indent=2) + "\n").encode()


def _appending(path: Path) -> BinaryIO:
    """Opens a file at its end, without creating one in a folder that was removed."""
    file = path.open("r+b")
    file.seek(0, os.SEEK_END)
    return file


def _is_within(error: OSError, path: Path) -> bool:
    """Whether an error is of a file in a folder, or of a disk: a write to a full one names no file."""
    name = error.filename
    if name is None:
        return error.errno in _OF_A_DISK
    return isinstance(name, str | os.PathLike) and Path(name).is_relative_to(path)
