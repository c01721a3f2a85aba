"""One process per run folder."""

import contextlib
import datetime
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foretrace._checks import UserError, import_extra


class RunError(UserError, OSError):
    """A run that cannot go on, for a reason that lies outside its options."""

    exit_code = 1


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Holds the file `lock` of a run folder, with this process's id, host and start time, while in use.

    The operating system gives the lock back when its process ends, however it ends, and the next process
    takes it over. Whether a process on another host has ended is unknown: its lock is removed by hand.

    Args:
        folder: the run folder; it exists.

    Raises:
        RunError: another process holds the lock, or the file cannot be written.
    """
    filelock = import_extra("filelock", "cli")
    path = folder / "lock"
    system_lock = filelock.FileLock(path, timeout=0)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    this = {"pid": os.getpid(), "host": platform.node(), "started": started}
    try:
        system_lock.acquire()
        holder = _read(path)
        if holder.get("host", this["host"]) != this["host"]:
            raise _in_use(folder, holder, f"if it is over, remove {str(path)!r}")
        path.write_text(json.dumps(this))
    except filelock.Timeout:
        raise _in_use(folder, _read(path), "wait for it or stop it") from None
    except OSError as error:
        system_lock.release()
        if isinstance(error, RunError):
            raise
        raise RunError(f"folder {str(folder)!r} cannot be locked: {error.strerror}.") from error
    try:
        yield
    finally:
        # Removed while the lock is held, and only where the folder was not replaced by another run's.
        with contextlib.suppress(OSError):
            if _read(path) == this:
                path.unlink()
        system_lock.release()


def _read(path: Path) -> dict[str, Any]:
    """The content of a lock file; empty where it cannot be read."""
    try:
        holder = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _in_use(folder: Path, holder: dict[str, Any], remedy: str) -> RunError:
    pid, host = holder.get("pid", "unknown"), holder.get("host", platform.node())
    started = holder.get("started", "an unknown time")
    return RunError(
        f"folder {str(folder)!r} is used by process {pid} on {host}, started at {started}; {remedy}."
    )
