"""A corpus as it was read, in a folder of the disk cache, which processes and later commands map into memory.

An entry holds the rows in the standard columns, what is known of each by its id, and the state of every file
that it was read from: when one has changed, the corpus is read again. It holds captions and file names: like
the rest of the cache, only its owner can read it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainclip import disk_cache
from domainclip.data.files import mapped_tables
from domainclip.data.files.mapped_tables import MappedTexts

if TYPE_CHECKING:
    from datasets import Dataset

VERSION = 1  # raise it when the form of an entry changes
MIN_ITEMS = 20_000  # reading fewer again takes seconds
_CHUNK = 4096  # files that are examined at once
# ns: within one tick of a file system's clock a file can change and keep its times.
_TIMESTAMP_MARGIN = 2 * 10**9
_CODE = Path(__file__).parent.parent  # what decides how a corpus is read


@dataclass(frozen=True)
class CorpusParts:
    """What is stored of a corpus."""

    splits: Mapping[str, Dataset]
    locations: Mapping[str, str]  # by id
    digests: Mapping[str, str]  # by id
    view_digests: Mapping[str, list[str]]  # by id, where an item has views
    facts: Mapping[str, Any]  # anything else, as JSON


class MappedLists(Mapping[str, list[str]]):
    """Lists of texts without spaces by id."""

    def __init__(self, texts: MappedTexts) -> None:
        self.texts = texts

    def __getitem__(self, id: str) -> list[str]:
        return self.texts[id].split(" ")

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __len__(self) -> int:
        return len(self.texts)


def entry_name(files: Iterable[Path], *settings: Any) -> str:
    """The name of the entry of a corpus that is read from files in their present state, with settings."""
    versions = disk_cache.versions("domainclip", "datasets", "pyarrow", "numpy")
    names = [str(file.absolute()) for file in files]
    with ThreadPoolExecutor(16) as pool:  # a file server answers each call after some time
        states = list(zip(names, pool.map(_state, names), strict=True))
    return disk_cache.key("corpus", VERSION, _code(), versions, states, *settings)


def find(name: str) -> Path | None:
    """The folder of an entry, if no image has changed since."""
    folder = disk_cache.find_files("corpora", name)
    if folder is None:
        return None
    if _unchanged(MappedTexts(folder / "files.arrow")):
        return folder
    with suppress(OSError):  # it makes room for the new one
        disk_cache.remove("corpora", name)
    return None


def _unchanged(recorded: Mapping[str, str]) -> bool:
    """Whether all files are in their recorded state."""
    rows = iter(recorded.items())
    with ThreadPoolExecutor(16) as pool:  # a file server answers each call after some time
        while part := dict(islice(rows, _CHUNK)):
            if list(part.values()) != list(pool.map(_state, part)):
                return False
    return True


def is_settled(files: Iterable[str], began: int) -> bool:
    """Whether a later change of any file will change its times; `began` (ns) is before they were read."""
    try:
        return all(began - os.stat(file).st_mtime_ns > _TIMESTAMP_MARGIN for file in files)
    except OSError:
        return False


def write(folder: Path, parts: CorpusParts, files: Iterable[str] = ()) -> None:
    """Write a corpus, and the state of the files of its images.

    Raises: OSError when the disk is full.
    """
    for name, items in parts.splits.items():
        mapped_tables.write_dataset(items, folder / f"{name}.arrow")
    mapped_tables.write_texts(parts.locations.items(), folder / "locations.arrow")
    mapped_tables.write_texts(parts.digests.items(), folder / "digests.arrow")
    views = ((id, " ".join(digests)) for id, digests in parts.view_digests.items())
    mapped_tables.write_texts(views, folder / "view_digests.arrow")
    mapped_tables.write_texts(((file, _state(file)) for file in files), folder / "files.arrow")
    (folder / "facts.json").write_text(json.dumps({"splits": list(parts.splits), **parts.facts}))


def read(folder: Path) -> CorpusParts:
    """The corpus in a folder, mapped."""
    facts = json.loads((folder / "facts.json").read_text())
    return CorpusParts(
        {name: mapped_tables.map_dataset(folder / f"{name}.arrow") for name in facts["splits"]},
        MappedTexts(folder / "locations.arrow"),
        MappedTexts(folder / "digests.arrow"),
        MappedLists(MappedTexts(folder / "view_digests.arrow")),
        facts,
    )


def now() -> int:
    """The time, for `is_settled`."""
    return time.time_ns()


def _state(file: str) -> str:
    try:
        status = os.stat(file)
    except OSError:
        return "missing"
    # The time of change cannot be set back, unlike the time of modification, which `cp -p` sets back.
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


@cache
def _code() -> str:
    """A digest of the code that reads: with other code, the same files may give other rows."""
    digest = hashlib.sha256()
    for file in sorted(path for path in _CODE.rglob("*") if path.suffix in (".py", ".yaml")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
