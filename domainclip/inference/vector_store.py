"""Embeddings of images on disk, by the digest of the image: files that change, move or go need no update.

One SQLite file for each model. Several processes may write it at the same time, and a killed one leaves it
whole. It holds no name of a file. Embeddings are not anonymous: only their owner may read them.
Legend: n images, d embedding width.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from domainclip import disk_cache
from domainclip.inference.saved_index import APPLICATION_ID

log = logging.getLogger("domainclip")
_KIND = "indexes"
_VERSION = 1
_LIMIT = 4 * 2**30  # bytes of all stores together; the least recently used are removed
_TABLE = "CREATE TABLE IF NOT EXISTS vectors (digest TEXT PRIMARY KEY, vector BLOB) WITHOUT ROWID"
_CHECK_BYTES = 8  # of a checksum before each vector
_QUERIED = 500  # digests of one query
_TIMEOUT = 60.0  # seconds that a process waits for another one's write


class VectorStore:
    """Vectors (d,) by digest. What cannot be written to the disk is held in memory until the process ends."""

    def __init__(self, fingerprint: str, width: int, file: Path | None = None) -> None:
        """`fingerprint` is that of the image tower, its preprocessing and the versions of the libraries.

        `file` is an index that a person named; by default a file in the cache.
        """
        self.width, self.named = width, file is not None
        folder = disk_cache.root() / _KIND / disk_cache.key(_KIND, _VERSION, fingerprint, width)
        self.file = folder / "vectors.sqlite" if file is None else file
        self.unwritten: dict[str, np.ndarray] = {}
        self.connection = self._open()

    def __enter__(self) -> VectorStore:
        return self

    def __exit__(self, *_: object) -> None:
        if self.connection is not None:
            self.connection.close()
        with suppress(OSError):
            disk_cache.Budget(_KIND, _LIMIT).prune()

    def read(self, digests: Sequence[str]) -> dict[str, np.ndarray]:
        """The stored vectors of some digests; a damaged one counts as missing."""
        known = {digest: self.unwritten[digest] for digest in digests if digest in self.unwritten}
        for start in range(0, len(digests), _QUERIED):
            known |= self._read(digests[start : start + _QUERIED])
        return known

    def write(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Store vectors (d,) float32; those of one call are written together or not at all."""
        rows = [(digest, _packed(vector)) for digest, vector in vectors.items()]
        try:
            if self.connection is None:
                raise sqlite3.OperationalError("not open")
            with self.connection:
                self.connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            if not self.unwritten and self.connection is not None:
                log.warning("warning: the index cannot be written (%s): it will be made again", error)
            self.unwritten |= vectors

    def _read(self, digests: Sequence[str]) -> dict[str, np.ndarray]:
        if self.connection is None:
            return {}
        marks = ",".join("?" * len(digests))
        query = f"SELECT digest, vector FROM vectors WHERE digest IN ({marks})"
        try:
            rows = self.connection.execute(query, list(digests)).fetchall()
        except sqlite3.OperationalError:  # locked for longer than the timeout
            return {}
        except sqlite3.DatabaseError:
            self._rebuild()
            return {}
        vectors = {digest: _unpacked(data, self.width) for digest, data in rows}
        return {digest: vector for digest, vector in vectors.items() if vector is not None}

    def _open(self) -> sqlite3.Connection | None:
        try:
            if not self.named:
                self._make_entry()
            os.close(os.open(self.file, os.O_RDWR | os.O_CREAT, 0o600))
            return self._connect()
        except (OSError, sqlite3.OperationalError) as error:
            log.warning("warning: the index cannot be opened (%s): it is made for this search only", error)
            return None
        except sqlite3.DatabaseError:
            return self._new()

    def _make_entry(self) -> None:
        """The folder of the cache, as `data cache list` shows it."""
        folder = self.file.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        about = {"what": "embeddings of images, for search"}
        (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")
        os.utime(folder)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.file, timeout=_TIMEOUT)
        try:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(_TABLE)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _rebuild(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = self._new()

    def _new(self) -> sqlite3.Connection | None:
        """An empty database in the place of a damaged one."""
        log.warning("warning: the index is damaged: it is made again")
        self.file.unlink(missing_ok=True)
        for suffix in ("-journal", "-wal"):
            self.file.with_name(self.file.name + suffix).unlink(missing_ok=True)
        return self._connect()


def _packed(vector: np.ndarray) -> bytes:
    data = vector.astype("<f4").tobytes()
    return hashlib.blake2b(data, digest_size=_CHECK_BYTES).digest() + data


def _unpacked(blob: object, width: int) -> np.ndarray | None:
    if not isinstance(blob, bytes) or len(blob) != _CHECK_BYTES + 4 * width:
        return None
    check, data = blob[:_CHECK_BYTES], blob[_CHECK_BYTES:]
    if hashlib.blake2b(data, digest_size=_CHECK_BYTES).digest() != check:
        return None
    return np.frombuffer(data, "<f4")
