"""Text: predict the next byte of a file, read again and again."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from foretrace._checks import UserError, check_positive_int
from foretrace.tasks._task import BITS_PER_BYTE, Example, Task, TaskSpec

_LEAST = 100  # bytes; below that nothing can be learned or measured


class TextState(NamedTuple):
    """Where each lane reads.

    Attributes:
        position: index of the byte that each lane reads next.
    """

    position: Int[Array, " lanes"]


class Corpus(NamedTuple):
    """Text as numbers.

    Attributes:
        symbols: every byte, as its place in `alphabet`.
        alphabet: the bytes that occur in the text to learn from, in order.
    """

    symbols: UInt8[np.ndarray, " n"]
    alphabet: UInt8[np.ndarray, " a"]


def text(corpus: Corpus, reset: int | None = 100) -> Task:
    """Predict the next byte of a text, byte by byte, endlessly.

    Lanes start at equal distances and wrap at the end. Where a lane's position is a multiple of `reset`,
    its hidden state and its past begin anew. The loss is in bits per byte, in which a character
    of English is one byte and one of Chinese three.

    Args:
        corpus: what to read (see `read_text`).
        reset: bytes from one fresh start to the next; None for none but the first.

    Returns:
        The task; inputs are one-hot.

    Raises:
        TypeError, ValueError: `reset` is neither None nor an int >= 1.

    Source: the code of Benzing et al., ICML 2019 (reset 100).
    """
    if reset is not None:
        check_positive_int("reset", reset, "the paper has 100, None is never")
    # One array for all lanes and seeds; as a constant it is not part of what must be saved.
    symbols, size = jnp.asarray(corpus.symbols), len(corpus.alphabet)

    def init(key, lanes):
        starts = np.linspace(0, len(symbols) - 1, lanes).astype(np.int32)
        return TextState(jnp.asarray(starts))

    def sample(state):
        following = (state.position + 1) % len(symbols)
        fresh = state.position % reset == 0 if reset else jnp.zeros(state.position.shape, bool)
        x = jax.nn.one_hot(symbols[state.position], size, dtype=jnp.float32)
        return TextState(following), Example(x, symbols[following].astype(jnp.int32), fresh)

    return Task(size, size, init, sample, BITS_PER_BYTE)


def read_text(path: Path, name: str = "file", alphabet: UInt8[np.ndarray, " a"] | None = None) -> Corpus:
    """Reads a text file of any encoding, byte by byte.

    Args:
        path: the file.
        name: of the argument, for messages.
        alphabet: the bytes that are known; those that occur unless given.

    Raises:
        ValueError: the file is missing, too short, not text, or has bytes that are not in the alphabet.
    """
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise UserError(
            f"{name} must be a text file; got {str(path)!r}: {error.strerror}; check the path."
        ) from None
    if len(content) < _LEAST:
        raise UserError(
            f"{name} must be a text of at least {_LEAST} bytes; got {str(path)!r} with {len(content)}; "
            "choose a longer one."
        )
    if not content.all():
        raise UserError(
            f"{name} must be a text file; got {str(path)!r}, which is binary (its byte "
            f"{int(np.argmin(content))} is NUL); choose a text."
        )
    there = np.unique(content)
    if alphabet is None:
        alphabet = there
    unknown = np.setdiff1d(there, alphabet)
    if unknown.size:
        raise UserError(
            f"{name} must have only bytes that the text to learn from has; got {str(path)!r} with "
            f"{bytes(unknown[:5])!r}; learn from a text that has them too."
        )
    table = np.zeros(256, np.uint8)
    table[alphabet] = np.arange(len(alphabet))
    return Corpus(table[content], alphabet)


SPEC = TaskSpec(
    "text",
    text,
    "the bytes of a text file: predict the next one, in bits per byte.",
    defaults={"hidden": 128, "lanes": 32, "learning_rate": 1e-3, "steps": 20_000},
    examples=("--file book.txt", "--file train.txt --valid valid.txt --test test.txt --hidden 256"),
)
