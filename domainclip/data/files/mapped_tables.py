"""Tables and texts by id on disk, which any number of processes map into memory and share.

A mapped page belongs to the system and is dropped when memory is short: a corpus costs a process the rows
that it reads, and not the rows that there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # a second of imports, which a wrong path or column need not wait for
    from datasets import Dataset

_ROWS = 10_000  # of a batch in a file: each costs a process that maps it about a kilobyte
_ROWS_WITH_BYTES = 256  # the same where images are inside the table


def write_dataset(items: Dataset, file: Path) -> None:
    """Write the rows of a data set; in memory are those of one batch."""
    import pyarrow as pa

    rows = _ROWS_WITH_BYTES if _holds_bytes(items) else _ROWS
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, items.features.arrow_schema) as writer:
        for start in range(0, len(items), rows):
            part = items.select(range(start, min(start + rows, len(items)))).with_format("arrow")[:]
            writer.write_table(part.cast(items.features.arrow_schema).combine_chunks())


def map_dataset(file: Path) -> Dataset:
    """The rows that `write_dataset` wrote, mapped."""
    from datasets import Dataset

    return Dataset.from_file(str(file))


def write_texts(rows: Iterable[tuple[str, str]], file: Path) -> None:
    """Write texts by id, for `MappedTexts`; ids are unique."""
    import pyarrow as pa

    schema = pa.schema([("id", pa.string()), ("text", pa.string())])
    hashes: list[int] = []
    part: list[tuple[str, str]] = []

    def flush() -> None:
        if part:
            ids, texts = zip(*part, strict=True)
            writer.write_table(pa.table([pa.array(ids, pa.string()), pa.array(texts, pa.string())], schema))
            hashes.extend(map(_hash, ids))
            part.clear()

    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for row in rows:
            part.append(row)
            if len(part) == _ROWS:
                flush()
        flush()
    by_hash = np.array(hashes, np.uint64)
    rows_by_hash = np.argsort(by_hash, kind="stable")
    np.save(_index_file(file), np.stack([by_hash[rows_by_hash], rows_by_hash.astype(np.uint64)]))


class MappedTexts(Mapping[str, str]):
    """Texts by id, as written by `write_texts`: a look-up reads a few pages of a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @cached_property
    def _table(self) -> Any:
        import pyarrow as pa

        return pa.ipc.open_stream(pa.memory_map(str(self.file))).read_all()

    @cached_property
    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        """The sorted hashes of the ids, and the row of each, (n,) uint64."""
        # A file without rows cannot be mapped.
        hashes, rows = np.load(_index_file(self.file), mmap_mode="r" if len(self) else None)
        return hashes, rows

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file}  # a process that receives it maps the files itself

    def __getitem__(self, id: str) -> str:
        return self.text_at(self.row_of(id))

    def text_at(self, row: int) -> str:
        """The text of a row."""
        return str(self._table.column("text")[row].as_py())

    def row_of(self, id: str) -> int:
        """The row of an id, in the order they were written.

        Raises: KeyError.
        """
        hashes, rows = self._index
        wanted = np.uint64(_hash(id))
        at = int(np.searchsorted(hashes, wanted))
        while at < len(hashes) and hashes[at] == wanted:
            row = int(rows[at])
            if self._table.column("id")[row].as_py() == id:
                return row
            at += 1
        raise KeyError(id)

    def __iter__(self) -> Iterator[str]:
        for batch in self._table.column("id").chunks:
            yield from batch.to_pylist()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def values(self) -> ValuesView[str]:
        """The texts, in the order they were written."""
        return _Texts(self)

    def items(self) -> ItemsView[str, str]:
        """The ids with their texts, in the order they were written."""
        return _Items(self)

    def texts(self) -> Iterator[str]:
        """The texts, a part of the file at a time."""
        for batch in self._table.column("text").chunks:
            yield from batch.to_pylist()


def look_up(texts: Mapping[str, str], ids: Iterable[str]) -> Iterator[str]:
    """The text of each id; quick where mapped texts were written in the same order.

    Raises: KeyError.
    """
    if not isinstance(texts, MappedTexts):
        yield from (texts[id] for id in ids)
        return
    rows = enumerate(texts.items())
    following = next(rows, None)
    for id in ids:
        if following is not None and following[1][0] != id:
            row = texts.row_of(id)
            if row < following[0]:  # in another order
                yield texts.text_at(row)
                continue
            # The rows between were left out since.
            following = next(islice(rows, row - following[0] - 1, None), None)
        if following is None:
            yield texts[id]
            continue
        yield following[1][1]
        following = next(rows, None)


class _Texts(ValuesView[str]):
    _mapping: MappedTexts

    def __iter__(self) -> Iterator[str]:
        return self._mapping.texts()


class _Items(ItemsView[str, str]):
    _mapping: MappedTexts

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return zip(self._mapping, self._mapping.texts(), strict=True)


def _index_file(file: Path) -> Path:
    return file.with_suffix(".index.npy")


def _hash(id: str) -> int:
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "big")


def _holds_bytes(items: Dataset) -> bool:
    import pyarrow.compute as pc

    images = items.select_columns(["image"]).with_format("arrow") if "image" in items.features else None
    if images is None or not len(images):
        return False
    first = images[: min(_ROWS_WITH_BYTES, len(images))]["image"]
    return any(pc.struct_field(chunk, "bytes").null_count < len(chunk) for chunk in first.chunks)
