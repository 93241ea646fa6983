"""Pseudonyms that only this machine can make: ids and groups leave the reader as keyed hashes.

A plain hash of a patient number is no secret, since all numbers can be tried; a keyed one is.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from domainclip.errors import DataError

VARIABLE = "DOMAINCLIP_SECRET"


def pseudonym_key() -> bytes:
    """The local key: $DOMAINCLIP_SECRET, or ~/.config/domainclip/secret, made on first use.

    Keep it to get the same pseudonyms again, share it to get them elsewhere, delete it to cut the link.

    Raises: DataError when it can be neither read nor made.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return given.encode()
    file = Path.home() / ".config" / "domainclip" / "secret"
    try:
        if not file.exists():
            _make(file)
        key = file.read_bytes().strip()
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}: make it readable, or set ${VARIABLE}") from None
    if not key:
        raise DataError(f"{file}: the secret is empty: delete the file, or set ${VARIABLE}")
    return key


def pseudonym(value: str, key: bytes) -> str:
    """HMAC-SHA256 of a value, 16 hex digits: equal values stay equal, and nothing else can be told."""
    return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()[:16]


def _make(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = file.with_name(f"secret.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as stream:
        stream.write(secrets.token_hex(32))
    try:
        # A link appears whole or not at all: of several processes that start together, one wins.
        os.link(draft, file)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
