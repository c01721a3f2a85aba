"""Signals while rows are awaited: a wait can be broken off at once, what is being learned is learned."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any


class Wish:
    """SIGTERM and SIGINT as a wish to stop: heard at once while waiting, else after what is learned."""

    def __init__(self):
        self.signal: int | None = None
        self._waiting = False

    def __enter__(self):
        """Takes the signals over, but for those that the parent told this process to ignore."""
        heard = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._hear) for number in heard}
        return self

    def __exit__(self, *_):
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def wait(self) -> Iterator[None]:
        """While rows are waited for."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def _hear(self, number: int, frame: Any) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number
        if self._waiting:
            raise KeyboardInterrupt
