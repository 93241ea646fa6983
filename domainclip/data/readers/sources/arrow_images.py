"""Images inside the Arrow files of a data set, as ranges of bytes of these files: none is in memory.

`save_to_disk` and the cache of `datasets` store the bytes of an image uncompressed and in one piece, as a tar
file does: `#offset=…&size=…` of the file is the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from domainclip.data.files import locations
from domainclip.data.files.column_names import column_name

_OFFSETS: dict[Any, Any] = {pa.binary(): np.dtype("<i4"), pa.large_binary(): np.dtype("<i8")}


def located_rows(undecoded: Any, rows: Any, column: str) -> Iterator[tuple[Mapping[str, Any], str | None]]:
    """The rows of `undecoded`, with the location of the image where it lies in a mapped file of `rows`.

    Such a row has no image column. Without a location, the cell is in the row.
    """
    places = image_ranges(rows, column) if isinstance(rows, Dataset) else None
    if places is None:
        yield from ((row, None) for row in undecoded)
        return
    others = undecoded.remove_columns([column])
    # Without any other column, a data set has no rows left.
    values = iter(others) if others.column_names else ({} for _ in range(len(undecoded)))
    for number, (row, place) in enumerate(zip(values, places, strict=True)):
        yield (row, place) if place else (undecoded[number], None)


def image_ranges(rows: Dataset, column: str) -> Iterator[str | None] | None:
    """The location of the image of each row; None for a row whose cell has to be read.

    None in place of all: the rows are not those of mapped files, one after another, or hold no bytes.
    """
    files = [entry["filename"] for entry in rows.cache_files]
    tables = [_open(file) for file in files]
    if rows._indices is not None or sum(table.num_rows for _, table in tables) != len(rows) or not files:
        return None
    names = [next((n for n in table.schema.names if column_name(n) == column), None) for _, table in tables]
    if not all(name and _holds_bytes(table, name) for name, (_, table) in zip(names, tables, strict=True)):
        return None
    return (
        location
        for file, name, (addresses, table) in zip(files, names, tables, strict=True)
        for chunk in table.column(name).chunks
        for location in _of_chunk(file, addresses, chunk)
    )


def _open(file: str) -> tuple[range, Any]:
    """The addresses that a file is mapped to, and its rows."""
    mapped = pa.memory_map(file)
    begin = int(mapped.read_buffer(1).address)
    mapped.seek(0)
    return range(begin, begin + mapped.size()), pa.ipc.open_stream(mapped).read_all()


def _holds_bytes(table: Any, name: str) -> bool:
    kind = table.schema.field(name).type
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and kind.field(index).type in _OFFSETS
    return kind in _OFFSETS


def _of_chunk(file: str, addresses: range, chunk: Any) -> Iterator[str | None]:
    is_struct = pa.types.is_struct(chunk.type)
    values = chunk.field("bytes") if is_struct else chunk
    inner = chunk.field("path") if is_struct and chunk.type.get_field_index("path") >= 0 else None
    _, offsets_buffer, data = values.buffers()
    if data is None or data.address not in addresses:  # no row has bytes, or they are compressed
        yield from (None for _ in range(len(chunk)))
        return
    offsets = np.frombuffer(offsets_buffer, _OFFSETS[values.type])[values.offset :][: len(values) + 1]
    first = int(data.address) - addresses.start  # place of the bytes in the file
    for row in range(len(chunk)):
        size = int(offsets[row + 1] - offsets[row])
        name = None if inner is None else inner[row].as_py()
        # The name of an image inside its table may select a part of it.
        if not size or (name and "#" in name):
            yield None
        else:
            yield locations.join_location(file, {"offset": first + int(offsets[row]), "size": size})
