"""Files that are on the disk when a call returns, and reads that follow no links."""

import os
import stat
from pathlib import Path

from foretrace._checks import UserError

# Without following links, and without blocking: opening a pipe would wait for a writer. Windows has neither
# flag, and reads text unless told otherwise.
_READ = os.O_RDONLY
for _name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
    _READ |= getattr(os, _name, 0)


class CheckpointError(UserError, OSError):
    """A checkpoint that could not be written, or that cannot be trusted."""

    exit_code = 1


def write_new(path: Path, data: bytes) -> None:
    """Writes a file that does not exist yet, and waits until it is on the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file so that at any instant the old one or the new one is there, whole."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        write_new(temporary, data)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk; on Windows folders cannot be opened."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_whole(path: Path, size: int | None = None, *, limit: int = 2**26) -> bytes:
    """Reads a regular file.

    Args:
        path: the file; a link, a pipe or a folder in its place is refused.
        size: bytes that it must have; None for any number up to `limit`.
        limit: most bytes where no size is given.

    Raises:
        CheckpointError: if it cannot be read whole.
    """
    name = path.name
    try:
        handle = os.open(path, _READ)
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(f"{name} is not a regular file")
            if size is not None and status.st_size != size:
                raise CheckpointError(f"{name} has {status.st_size:,} bytes instead of {size:,}")
            if size is None and status.st_size > limit:
                raise CheckpointError(f"{name} has {status.st_size:,} bytes, more than {limit:,}")
            data = file.read()
    except CheckpointError:
        raise
    except OSError as error:
        reason = "is a link" if path.is_symlink() else f"cannot be read: {error.strerror}"
        raise CheckpointError(f"{name} {reason}") from None
    if len(data) != status.st_size:
        raise CheckpointError(f"{name} ended after {len(data):,} of {status.st_size:,} bytes")
    return data
