"""Signals that ask a run to stop, noticed even while the main thread is inside compiled code."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

# All that ask a process to end: a terminal that closes, a batch system before its limit, spent CPU time.
_NAMES = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGXCPU", "SIGUSR1", "SIGUSR2")
_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
# Others come more than once of themselves: SIGHUP from the shell and from the system, SIGXCPU every second.
_IMPATIENT = _SIGNALS[:3]


class StopSignal:
    """While in use, a signal that asks the process to end sets `signal`.

    A second SIGTERM, SIGINT or SIGQUIT exits at once.

    Python runs a handler only when compiled code has returned. A second thread reads the byte that the
    interpreter writes for every signal, and so can exit at any time.

    Attributes:
        signal: the number of the first signal, or None.
    """

    def __init__(self, *, interrupt_waits: bool = False):
        """Prepares the signals.

        Args:
            interrupt_waits: raise KeyboardInterrupt in a `wait` too.
        """
        self.signal: int | None = None
        self._interrupt_waits, self._waiting = interrupt_waits, False

    def __enter__(self):
        """Replaces the handlers; in the main thread only."""
        self._read, self._write = os.pipe()
        if hasattr(os, "set_blocking"):  # Windows, before Python 3.12, has no such pipes and needs none
            os.set_blocking(self._write, False)
        # A signal that the parent ignores, as a shell does for processes in the background, stays ignored.
        numbers = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, self._handle) for number in numbers}
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        """Restores the handlers."""
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.write(self._write, b"\0")
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    @contextlib.contextmanager
    def wait(self) -> Iterator[None]:
        """For waits: with `interrupt_waits`, a signal ends one by KeyboardInterrupt."""
        self._waiting = self._interrupt_waits
        try:
            if self._waiting and self.signal is not None:  # it came just before
                raise KeyboardInterrupt
            yield
        finally:
            self._waiting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        if self._waiting:
            raise KeyboardInterrupt

    def _listen(self) -> None:
        said = impatient = False
        while number := os.read(self._read, 1)[0]:
            if number not in self._handlers:
                continue
            if number in _IMPATIENT:
                if impatient:
                    os._exit(128 + number)
                impatient = True
            if not said and not self._interrupt_waits:
                said = True
                with contextlib.suppress(OSError, ValueError):
                    print(
                        "\nforetrace: stopping after this chunk; once more to exit at once.",
                        file=sys.stderr,
                    )
