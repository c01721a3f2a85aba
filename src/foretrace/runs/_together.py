"""Processes of one job that run in step: decisions that all make alike, and what only the first does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from foretrace._checks import UserError


def count() -> int:
    """Processes of this job."""
    return jax.process_count()


def is_first() -> bool:
    """Whether this process is the one that writes for all."""
    return jax.process_index() == 0


def gathered(text: str) -> list[str]:
    """What every process says, in their order; each must call this as often as the others."""
    if count() == 1:
        return [text]
    from jax.experimental import multihost_utils

    data = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(data.size))
    padded = np.pad(data, (0, int(np.max(sizes)) - data.size))
    rows = multihost_utils.process_allgather(padded).reshape(count(), -1)
    return [bytes(row[:size]).decode() for row, size in zip(rows, np.ravel(sizes).tolist(), strict=True)]


def any_of(flag: bool) -> bool:
    """Whether it is true in any process."""
    return flag if count() == 1 else any(word == "1" for word in gathered("1" if flag else "0"))


def refuse_together(call: Callable[[], Any]) -> Any:
    """Calls a function in every process; what one refuses, all refuse, with its sentence.

    Raises:
        UserError: raised by the call in this process or another.
    """
    if count() == 1:
        return call()
    result, refusal = None, None
    try:
        result = call()
    except UserError as error:
        refusal = error
    sentences = [sentence for sentence in gathered("" if refusal is None else str(refusal)) if sentence]
    if refusal is not None:
        raise refusal
    if sentences:
        raise UserError(sentences[0])
    return result


def check_shared(path: Path, first_wrote: bool) -> None:
    """Raises UserError unless every process sees a path that the first has written."""
    if count() == 1:
        return
    visible = gathered("1" if path.exists() else "0")
    if first_wrote and "0" in visible:
        blind = [str(i) for i, word in enumerate(visible) if word == "0"]
        raise UserError(
            f"out must be a folder that every process sees; got {str(path.parent)!r}, which process "
            f"{', '.join(blind)} does not; give one on a shared file system."
        )
