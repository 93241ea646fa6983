"""`data prepare` in parts: each job of an array writes every n-th shard into a folder; a last one joins them.

Which shards a part writes follows from its number alone, so that the parts need not know of each other, and
the joined folder has the bytes of a folder that one process wrote.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from domainclip.data import prepared_format
from domainclip.distributed.folder_lock import FolderLock
from domainclip.errors import DataError
from domainclip.pipelines.parts import Part

_PARTS = "parts.json"  # in the folder of the notes: the number of parts
_NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP)  # of file systems without locks on folders
_NAMED = 20  # missing parts that are listed


def begin_part(notes: Path, part: Part) -> None:
    """Record the number of parts beside the notes of the shards.

    Raises: DataError when the folder was begun with another number of them.
    """
    before = count_of_parts(notes)
    if before is None:
        prepared_format.write_atomically(notes / _PARTS, json.dumps(part.count).encode())
    elif before != part.count:
        raise DataError(
            f"--part: {notes.parent} was begun in {before} parts, not {part.count}: use --part i/{before}, "
            "or name a new folder"
        )


def count_of_parts(notes: Path) -> int | None:
    """The number of parts that a folder was begun with; None where no part has begun."""
    try:
        return int(json.loads((notes / _PARTS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def refuse_missing(notes: Path, missing: Sequence[int]) -> None:
    """Name the parts whose shards are missing; `missing` are numbers of shards, from 0.

    Raises: DataError when there are any.
    """
    if not missing:
        return
    count = count_of_parts(notes)
    if count is None:
        raise DataError(
            f"--join: no part was written to {notes.parent}: run --part 1/8 to --part 8/8 first, or any "
            "other number of parts"
        )
    parts = sorted({shard % count + 1 for shard in missing})
    named = ", ".join(f"{number}/{count}" for number in parts[:_NAMED]) + (
        " …" if len(parts) > _NAMED else ""
    )
    raise DataError(
        f"--join: {len(missing)} shards are missing, of part{'s' * (len(parts) > 1)} {named}: run "
        f"{'them' if len(parts) > 1 else 'it'} again with the same options, then --join"
    )


@contextmanager
def locked_output(out: Path, notes: str, part: Part | None) -> Iterator[None]:
    """Make the folder, for this process alone or for a process of each part; `notes` is that of its notes.

    Raises: DataError when another process writes there; RecipeError when one writes the same part.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{out}: {error.strerror}: name another folder") from None
    held: list[FolderLock] = []
    try:
        mode = fcntl.LOCK_SH if part else fcntl.LOCK_EX
        try:
            fcntl.flock(handle, mode | fcntl.LOCK_NB)  # ends with the process, however that ends
        except BlockingIOError:
            raise DataError(f"{out}: another domainclip data prepare writes there: wait for it") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            if part is None:
                held.append(FolderLock(out / notes).acquire())
        if part is not None:
            held.append(FolderLock(out / notes / f"part-{part.number}").acquire())
        yield
    finally:
        for lock in held:
            lock.release()
        os.close(handle)
