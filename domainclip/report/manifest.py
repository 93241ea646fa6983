"""The list of the files that a run wrote, with their sha256: `RUN/manifest.json`.

It shows which files are still those of the run. It is no signature: a person who can change a file can change
the list as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from domainclip.data import prepared_format
from domainclip.errors import ModelError

FILE = "manifest.json"
_VERSION = 1
# Checkpoints have a list of their own. The other names are written after the run: by `eval` and by `export`.
_OTHERS = ("checkpoints", "eval", "export", "external.jsonl", "ledger.jsonl", FILE)
# `eval` adds to these after the run; the card may be edited by hand as well.
REWRITTEN = ("README.md", "model/classes.json")
Status = Literal["as written", "changed", "missing", "added"]


@dataclass(frozen=True)
class ListedFile:
    """A file of a run folder, and whether it is what the run wrote."""

    path: str  # in the run folder
    size: int  # bytes
    sha256: str
    status: Status


def write(run: Path) -> None:
    """Write the list of the files that are in the run folder now.

    Raises: OSError when it cannot be written.
    """
    files = {name: {"bytes": size, "sha256": digest} for name, size, digest in _files(run)}
    data = json.dumps({"version": _VERSION, "files": files}, indent=1)
    prepared_format.write_atomically(run / FILE, data.encode())


def compare(run: Path) -> list[ListedFile] | None:
    """The files of a run folder against the list that the run wrote; None for a run without a list.

    Raises: ModelError for a list that cannot be read.
    """
    if not (run / FILE).is_file():
        return None
    try:
        data = json.loads((run / FILE).read_text(encoding="utf-8"))
        if data["version"] != _VERSION:
            raise ValueError
        written = {str(name): (int(one["bytes"]), str(one["sha256"])) for name, one in data["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{run / FILE}: not a list of files that this version reads: restore it") from None
    found = {name: (size, digest) for name, size, digest in _files(run)}
    return [
        ListedFile(name, *found.get(name) or written[name], _status(written.get(name), found.get(name)))
        for name in sorted({*written, *found})
    ]


def _status(written: tuple[int, str] | None, found: tuple[int, str] | None) -> Status:
    if found is None:
        return "missing"
    if written is None:
        return "added"
    return "as written" if written == found else "changed"


def _files(run: Path) -> Iterator[tuple[str, int, str]]:
    """Name, bytes and sha256 of each file, links not followed."""
    for file in sorted(run.rglob("*")):
        name = file.relative_to(run)
        if file.is_symlink() or not file.is_file() or name.parts[0] in _OTHERS or name.name.startswith("."):
            continue
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        yield name.as_posix(), file.stat().st_size, digest
