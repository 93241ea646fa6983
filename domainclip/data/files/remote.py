"""A file on another machine, read from its beginning to its end; a lost connection is taken up again."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any

from datasets.utils.file_utils import xopen

LOOPBACK = ("http://127.0.0.1:", "http://localhost:")  # nothing in between could change what is read
_ATTEMPTS = 5
_TIMEOUT = 60.0  # seconds without a byte


def open_stream(address: str) -> Any:
    """Something with `read` and `close`, of a file here, behind https:// or behind hf://.

    Raises: OSError, or what the Hub's client raises, when it cannot be reached.
    """
    return _Download(address) if address.startswith("http") else xopen(address, "rb")


class _RequestRefused(OSError):
    """The server was reached and says no: asking again is of no use."""


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirection to https alone; one to http or ftp could be changed or read on its way."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        # What began on this machine may stay on it; what began elsewhere must not reach into it.
        allowed = ("https://", *(LOOPBACK if req.full_url.startswith(LOOPBACK) else ()))
        if not newurl.startswith(allowed):
            fp.close()
            raise _RequestRefused("it leads to an address that is not https://")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_SecureRedirects)


class _Download:
    """The bytes behind an address; certificates are verified, and redirections stay on https."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.at = 0
        self.response: Any = None
        self._connect()

    def read(self, size: int = -1) -> bytes:
        """So many bytes, fewer only at the end.

        Raises: OSError when the connection stays lost.
        """
        parts, left = [], size
        while left:
            data = self._some(left)
            if not data:
                break
            parts.append(data)
            left -= len(data) if size > 0 else 0
        return b"".join(parts)

    def close(self) -> None:
        """Ends the connection."""
        self.response.close()

    def _some(self, most: int) -> bytes:
        for attempt in range(_ATTEMPTS):
            try:
                if attempt:
                    time.sleep(0.2 * 4**attempt)
                    self._connect()
                data: bytes = self.response.read(most if most > 0 else 2**20)
                if data or self.length is None or self.at >= self.length:
                    self.at += len(data)
                    return data
            except _RequestRefused:
                raise
            except (OSError, HTTPException):
                continue
        raise OSError(f"the connection was lost after {self.at} bytes")

    def _connect(self) -> None:
        """From where it stopped, also when the server only knows to begin at the beginning."""
        request = urllib.request.Request(self.address, headers={"User-Agent": "domainclip"})
        if self.at:
            request.add_header("Range", f"bytes={self.at}-")
        if self.response is not None:
            self.response.close()
        try:
            self.response = _OPENER.open(request, timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            raise _RequestRefused(f"the server says {error.code} {error.reason}") from None
        length = self.response.headers.get("Content-Length")
        begin = self.at if self.response.status == 206 else 0
        self.length = None if length is None else begin + int(length)
        skip = self.at - begin
        while skip > 0 and (passed := len(self.response.read(min(skip, 2**20)))):
            skip -= passed
