"""The server of the page: for the browser of this machine alone, and only with the token of its address.

It listens on the loopback interface. A page of another origin can neither read an answer (no CORS) nor guess
the token; a host name that was pointed at this machine (DNS rebinding) is refused by the Host header.
"""

from __future__ import annotations

import secrets
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import perf_counter
from urllib.parse import urlsplit

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
_TIMEOUT = 60  # seconds that an idle connection is held
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Reply:
    """An answer of the page."""

    body: bytes
    kind: str = "text/html; charset=utf-8"  # the media type
    status: HTTPStatus = HTTPStatus.OK
    file: str = ""  # the name under which a browser saves it


Answer = Callable[[str, str], Reply | None]  # of a path below the token and a query; None: no such page


class LocalServer(ThreadingHTTPServer):
    """Serves `answer` on the loopback interface, on a free port where `port` is 0.

    Raises: OSError when the port is taken.
    """

    daemon_threads = True

    def __init__(self, answer: Answer, port: int = 0) -> None:
        self.answer = answer
        self.token = secrets.token_urlsafe(24)
        super().__init__((HOST, port), _Handler)

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def is_own_host(self, header: str | None) -> bool:
        """Whether a Host header names this server: no other name may stand for it."""
        return header in {f"{name}:{self.server_port}" for name in _NAMES}

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that broke off is no fault, and a traceback could show values of the corpus."""


class _Handler(BaseHTTPRequestHandler):
    server: LocalServer
    server_version, sys_version = "domainclip", ""
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT

    def do_GET(self) -> None:
        """Answer a page."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer without the content."""
        self._answer(with_body=False)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing is logged: an address holds what is searched for, and the token."""

    def _answer(self, with_body: bool) -> None:
        began = perf_counter()
        reply = self._reply()
        self.send_response(reply.status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Server-Timing", f"answer;dur={1000 * (perf_counter() - began):.1f}")
        if reply.file:
            self.send_header("Content-Disposition", f'attachment; filename="{reply.file}"')
        self.end_headers()
        if with_body:
            self.wfile.write(reply.body)

    def _reply(self) -> Reply:
        if not self.server.is_own_host(self.headers.get("Host")):
            return _refusal(HTTPStatus.MISDIRECTED_REQUEST, "this address is not that of the page")
        parts = urlsplit(self.path)
        token, slash, path = parts.path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()) or not slash:
            return _refusal(HTTPStatus.NOT_FOUND, "no such page: open the address that the command printed")
        try:
            reply = self.server.answer(path, parts.query)
        except Exception as error:  # of any library; its message may hold a value of the corpus
            print("".join(traceback.format_tb(error.__traceback__)), type(error).__name__, file=sys.stderr)
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of domainclip: please report it")
        return reply or _refusal(HTTPStatus.NOT_FOUND, "no such page")


def _refusal(status: HTTPStatus, text: str) -> Reply:
    return Reply(text.encode(), "text/plain; charset=utf-8", status)
