"""SIGTERM and SIGINT as a wish to stop, heard even while the main thread is inside compiled code."""

import contextlib
import os
import signal
import sys
import threading
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """While in use, the first SIGTERM or SIGINT sets `signal`, and a second one exits at once.

    Python runs a handler only when compiled code has returned; a thread that reads the byte that the
    interpreter writes for every signal needs not wait.

    Attributes:
        signal: the number of the signal that came, or None.
    """

    def __init__(self):
        self.signal: int | None = None

    def __enter__(self):
        """Takes the signals over; to be used by the main thread."""
        self._read, write = os.pipe()
        self._write = write
        os.set_blocking(write, False)
        # What the parent told this process to ignore, as a shell does in the background, stays ignored.
        heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, _ignore) for number in heard}
        self._wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        """Gives the signals back."""
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.write(self._write, b"\0")
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def _listen(self) -> None:
        while number := os.read(self._read, 1)[0]:
            if number not in self._handlers:
                continue
            if self.signal is not None:
                os._exit(128 + number)
            self.signal = number
            with contextlib.suppress(OSError, ValueError):
                print("\nforetrace: stopping after this chunk; once more to exit at once.", file=sys.stderr)


def _ignore(number: int, frame: FrameType | None) -> None:
    """A handler has to be there for the byte to be written."""
