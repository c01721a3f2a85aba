"""Output whose end does not end a command: its reader may go away, and its disk or terminal too."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


class _Output:
    """A text stream that drops what cannot be written, from the first error on."""

    def __init__(self, stream: Any, name: str, say: Callable[[str], Any]):
        self._stream, self._name, self._say, self._lost = stream, name, say, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes what can be written; characters that the encoding lacks become question marks."""
        with self._errors():
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:
                self._stream.write(text.encode(error.encoding, "replace").decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        """Flushes what can be written."""
        with self._errors():
            self._stream.flush()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # a stream that is closed raises ValueError
            with contextlib.suppress(OSError, ValueError):
                # Python flushes what is left in the buffer at its exit, and would complain once more.
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if not self._lost:
                self._lost = True
                self._say(f"{self._name} cannot be written any more: {getattr(error, 'strerror', error)}")


@contextlib.contextmanager
def output_may_end() -> Iterator[None]:
    """While in use, standard output and standard error may end; what was lost is said on the other."""
    before = sys.stdout, sys.stderr

    def say(sentence):
        print(f"foretrace: warning: {sentence}; the command goes on.", file=sys.stderr, flush=True)

    # A process may be started with one of them closed; the next file must not take its number.
    with open(os.devnull, "w") as nowhere:
        sys.stderr = _Output(before[1] or nowhere, "standard error", lambda sentence: None)
        sys.stdout = _Output(before[0] or nowhere, "standard output", say)
        try:
            yield
        finally:
            # Here, where an error is still caught.
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = before
