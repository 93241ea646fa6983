"""A file on another machine, read from beginning to end; a lost connection is resumed."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any

from datasets.utils.file_utils import xopen

from domainclip.config import offline
from domainclip.data.files import object_stores

LOOPBACK = ("http://127.0.0.1:", "http://localhost:")  # nothing in between could change the content
_ATTEMPTS = 5
_TIMEOUT = 60.0  # seconds without a byte


def open_stream(address: str) -> Any:
    """A stream with `read` and `close`, of a local file, or of one behind https:// or hf://, or in a store.

    Raises: OSError, or an error of the Hub's client, if it cannot be reached; HubError in work offline.
    """
    if object_stores.scheme_of(address):
        object_stores.check_address(address)
        return object_stores.StoreFile(address)
    if "://" in address and not address.startswith(LOOPBACK):
        offline.refuse_if_offline(
            "corpus.path, an address", "download its files where there is a network, and name their folder"
        )
    return _Download(address) if address.startswith("http") else xopen(address, "rb")


class _RequestRefused(OSError):
    """The server was reached and refused the request: another attempt would be refused too."""


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to https only; content behind http or ftp could be changed or read on its way."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        # A request to this machine may stay on it; a request to another machine must not reach into it.
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
        self.position = 0
        self.response: Any = None
        self._connect()

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, fewer only at the end; -1: all that are left.

        Raises: OSError if the connection stays lost.
        """
        parts, remaining = [], size
        while remaining:
            data = self._read_some(remaining)
            if not data:
                break
            parts.append(data)
            remaining -= len(data) if size > 0 else 0
        return b"".join(parts)

    def close(self) -> None:
        """Close the connection."""
        self.response.close()

    def _read_some(self, max_bytes: int) -> bytes:
        for attempt in range(_ATTEMPTS):
            try:
                if attempt:
                    time.sleep(0.2 * 4**attempt)
                    self._connect()
                data: bytes = self.response.read(max_bytes if max_bytes > 0 else 2**20)
                if data or self.length is None or self.position >= self.length:
                    self.position += len(data)
                    return data
            except _RequestRefused:
                raise
            except (OSError, HTTPException):
                continue
        raise OSError(f"the connection was lost after {self.position} bytes")

    def _connect(self) -> None:
        """Connect and go on at `position`, even if the server ignores ranges and begins at the start."""
        request = urllib.request.Request(self.address, headers={"User-Agent": "domainclip"})
        if self.position:
            request.add_header("Range", f"bytes={self.position}-")
        if self.response is not None:
            self.response.close()
        try:
            self.response = _OPENER.open(request, timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            raise _RequestRefused(f"the server answered {error.code} {error.reason}") from None
        length = self.response.headers.get("Content-Length")
        begin = self.position if self.response.status == 206 else 0
        self.length = None if length is None else begin + int(length)
        to_skip = self.position - begin
        while to_skip > 0 and (skipped := len(self.response.read(min(to_skip, 2**20)))):
            to_skip -= skipped
