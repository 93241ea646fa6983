"""Object stores (S3, Google Cloud Storage, Azure) through fsspec: files are listed, and read in order.

Credentials come from the environment and the configuration files that a store's own tools read, never from an
address; no message quotes an answer of a store, which may name accounts and keys.
"""

from __future__ import annotations

import importlib.util
import re
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from domainclip.config import offline
from domainclip.errors import RecipeError

# By scheme: the module that fsspec needs, and the extra that installs it.
STORES = {
    "s3": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure"),
    "abfs": ("adlfs", "azure"),
}
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_BLOCK = 2**23  # bytes that are requested at once
_ATTEMPTS = 5
_FIRST_WAIT = 0.2  # seconds; four times as long before each further attempt
_REFUSED = (FileNotFoundError, PermissionError, IsADirectoryError)  # another attempt is refused too
Result = TypeVar("Result")


def scheme_of(address: str) -> str:
    """The scheme of an address in a store; "" for anything else."""
    match = _SCHEME.match(address)
    scheme = match[1].lower() if match else ""
    return scheme if scheme in STORES else ""


def check_address(address: str, key: str = "corpus.path") -> None:
    """Check an address without asking the store.

    Raises: RecipeError for a missing library, and for a password in the address; HubError in work offline.
    """
    scheme = scheme_of(address)
    if not scheme:
        return
    account = address.split("://", 1)[1].split("/", 1)[0]
    if "@" in account and ":" in account.split("@", 1)[0]:
        raise RecipeError(
            f"{key}: the address holds a password, which would be written to recipes and logs: remove it, "
            "and set it in the environment, as the tools of the store read it"
        )
    module, extra = STORES[scheme]
    if importlib.util.find_spec(module) is None:
        raise RecipeError(f"{key}: {scheme}:// needs {module}: pip install 'domainclip[{extra}]'")
    offline.refuse_if_offline(
        f"{key}, an address", "download its files where there is a network, and name their folder"
    )


def list_files(address: str, suffix: str) -> list[str]:
    """The addresses of the files with this suffix in a folder and below, sorted.

    Raises: OSError when the store cannot be reached.
    """
    scheme = address.split("://", 1)[0]
    files, folder = file_system(address)
    found = patiently(lambda: files.find(folder))
    return sorted(f"{scheme}://{name.lstrip('/')}" for name in found if name.lower().endswith(suffix))


class StoreFile:
    """The bytes of a file in a store, read in order; after a lost connection it goes on where it was."""

    def __init__(self, address: str) -> None:
        """Raises: OSError when the file cannot be opened."""
        self._files, self._name = file_system(address)
        self._position = 0
        self._stream: Any = None
        self._size: int = patiently(self._open)

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, fewer only at the end; -1: all that are left.

        Raises: OSError when the connection stays lost.
        """
        remaining = self._size - self._position if size < 0 else min(size, self._size - self._position)
        parts = []
        while remaining:
            data = patiently(partial(self._read_some, remaining), lost=self._reopen)
            parts.append(data)
            remaining -= len(data)
        return b"".join(parts)

    def close(self) -> None:
        """Close the file."""
        with suppress(Exception):  # whatever a client does about a connection that is gone
            self._stream.close()

    def _open(self) -> int:
        self._stream = self._files.open(self._name, "rb", block_size=_BLOCK, cache_type="readahead")
        self._stream.seek(self._position)
        return int(self._stream.size)

    def _reopen(self) -> None:
        self.close()
        with suppress(Exception):  # the next attempt reports it
            self._open()

    def _read_some(self, size: int) -> bytes:
        data: bytes = self._stream.read(min(size, _BLOCK))
        if not data:
            raise ConnectionError
        self._position += len(data)
        return data


def file_system(address: str) -> tuple[Any, str]:
    import fsspec

    return fsspec.core.url_to_fs(address)  # type: ignore[no-any-return]


def patiently(call: Callable[[], Result], lost: Callable[[], None] | None = None) -> Result:
    """The result of a request, attempted a few times; clients raise errors of many kinds.

    Raises: OSError without the words of the store.
    """
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_FIRST_WAIT * 4 ** (attempt - 1))
            if lost is not None:
                lost()
        try:
            return call()
        except FileNotFoundError:
            raise OSError("no such file in the store") from None
        except _REFUSED:
            raise OSError("the store refuses access: check its credentials in this environment") from None
        except Exception as error:
            kind = type(error).__name__
    raise OSError(f"the store did not answer after {_ATTEMPTS} attempts ({kind})")
