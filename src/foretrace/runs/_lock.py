"""One process per run folder."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from foretrace._checks import UserError


class RunError(UserError, OSError):
    """A run that cannot go on, for a reason that lies outside its options."""

    exit_code = 1


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Holds the file `lock` of a run folder, with this process's id, host and start time, while in use.

    The operating system gives the lock back when its process ends, however it ends: what a killed process
    left behind is taken over. Of another host that cannot be known, so its lock has to be removed by hand.

    Args:
        folder: the run folder; it exists.

    Raises:
        RunError: if another process holds it, or it cannot be written.
    """
    path = folder / "lock"
    try:
        handle = _acquire(path)
    except OSError as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"folder {str(folder)!r} cannot be locked: {error.strerror}.") from error
    try:
        yield
    finally:
        # Removed while it is held: who waits for this file then finds that it is not the one of this name.
        if _is_at(handle, path):
            path.unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: Path) -> int:
    """Opens and locks the file, and writes who holds it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            _take(handle, path)
            if _is_at(handle, path):
                content = json.dumps({"pid": os.getpid(), "host": platform.node(), "started": _now()})
                os.ftruncate(handle, 0)
                os.pwrite(handle, content.encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _take(handle: int, path: Path) -> None:
    """Locks an open file, unless its content names a holder that may be alive."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        free = False
    try:
        holder = json.loads(os.pread(handle, 10_000, 0))
        host, pid, started = holder["host"], holder["pid"], holder["started"]
    except (ValueError, KeyError, TypeError):
        host, pid, started = platform.node(), "unknown", "an unknown time"
    if not free or host != platform.node():
        remedy = "wait for it or stop it" if not free else f"if it is over, remove {str(path)!r}"
        raise RunError(
            f"folder {str(path.parent)!r} is used by process {pid} on {host}, started at {started}; "
            f"{remedy}."
        )


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
