"""A server of one page on this machine: the page, and what is new about it."""

import contextlib
import functools
import json
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from foretrace import plotting
from foretrace._checks import UserError

PORT = 8471
_HOST = "127.0.0.1"
_SHARE = 20  # one part in so many of a processor's time at most goes into new pages


class Pages:
    """The newest page of a run, drawn anew when a reader asks and the run went on."""

    def __init__(self, page_of: Callable[[], plotting.Page], mark_of: Callable[[], str]):
        """Draws it for the first time.

        Args:
            page_of: draws the page.
            mark_of: a text that changes when the run goes on, cheap to make.
        """
        self._page_of, self._mark_of, self._lock = page_of, mark_of, threading.Lock()
        self._mark, self._not_before = mark_of(), 0.0
        self._draw()

    def newest(self) -> tuple[plotting.Page, str]:
        """The page and its version."""
        with self._lock:
            mark = self._mark_of()
            if mark != self._mark and time.monotonic() >= self._not_before:
                self._mark = mark
                # A run that is resumed, moved or removed has no page for a moment, or none any more.
                with contextlib.suppress(UserError):
                    self._draw()
            return self._page, self._version

    def _draw(self) -> None:
        start = time.monotonic()
        self._page = self._page_of()
        end = time.monotonic()
        self._version, self._not_before = f"{end:.6f}", end + (_SHARE - 1) * (end - start)


class _Handler(BaseHTTPRequestHandler):
    """Answers for the page and for its news, and for nothing else."""

    def __init__(self, pages: Pages, *connection: Any):
        self._pages = pages
        super().__init__(*connection)

    def do_GET(self) -> None:
        """Answers one request."""
        url = urlsplit(self.path)
        # A name that another site points to this machine must not read the page.
        if self.headers.get("Host", "").partition(":")[0] not in (_HOST, "localhost"):
            self._answer(HTTPStatus.FORBIDDEN)
        elif url.path == "/":
            page, _ = self._pages.newest()
            self._answer(HTTPStatus.OK, plotting.html_of(page, watched=True), "text/html; charset=utf-8")
        elif url.path == "/content":
            page, version = self._pages.newest()
            if parse_qs(url.query).get("seen") == [version]:
                return self._answer(HTTPStatus.NO_CONTENT)
            news = json.dumps(plotting.content_of(page) | {"version": version})
            self._answer(HTTPStatus.OK, news, "application/json")
        else:
            self._answer(HTTPStatus.NOT_FOUND)

    def _answer(self, status: HTTPStatus, text: str = "", kind: str = "text/plain") -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: a line for every request would hide what matters."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Shows an error, but for a browser that goes away in the middle of an answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def server_of(pages: Pages, port: int | None) -> ThreadingHTTPServer:
    """A server on 127.0.0.1, ready to serve.

    Args:
        pages: what it serves.
        port: where; unless given the usual port, or a free one where that is taken.

    Raises:
        UserError: the port cannot be used.
    """
    handler = functools.partial(_Handler, pages)
    if port is None:
        try:
            return _Server((_HOST, PORT), handler)
        except OSError:
            port = 0  # any that is free
    try:
        return _Server((_HOST, port), handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"port must be a free one, from 1 to 65535; got {port}: {reason}; leave it out."
        ) from None
