"""Rows of Parquet files from any row on, here or behind hf://: the footer says where groups of rows lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq
from datasets import Features
from datasets.utils.file_utils import xopen

from domainclip.data.quarantine import ReadLog, UnusableItem
from domainclip.data.rows import SourceRow, image_from_cell
from domainclip.errors import DataError

_ROWS = 64  # that are decoded at once


@dataclass(frozen=True)
class ParquetShards:
    """The files of one split; opens them for a stream, and crosses to worker processes."""

    files: tuple[str, ...]
    image: str  # the column with the pictures, as {bytes, path} or bytes

    @property
    def names(self) -> tuple[str, ...]:
        """The files, without what leads to them."""
        return tuple(file.rpartition("/")[2] for file in self.files)

    def counts(self) -> tuple[int, ...]:
        """How many rows each has, by its footer."""
        return tuple(self._count(shard) for shard in range(len(self.files)))

    def __call__(self, shard: int, start: int, log: ReadLog) -> Iterator[SourceRow | None]:
        """The rows of a file from the `start`-th on; None for one without a picture."""
        name = self.names[shard]
        for at, row in self._rows(shard, start):
            picture = image_from_cell(row.pop(self.image))
            place = f"shard {shard + 1} row {at + 1}"
            if (
                not isinstance(picture["bytes"], bytes) or not picture["bytes"]
            ):  # a path would lie on the machine of whoever made it
                log.unusable.append(UnusableItem(place, "missing picture"))
                yield None
                continue
            yield SourceRow(row, place, {"path": None, "bytes": picture["bytes"]}, f"{name}/{at}")

    def _count(self, shard: int) -> int:
        with closing(self._opened(shard)) as data:
            return int(pq.ParquetFile(data).metadata.num_rows)

    def _rows(self, shard: int, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
        with closing(self._opened(shard)) as data:
            table, at = pq.ParquetFile(data), 0
            for group in range(table.num_row_groups):
                rows = table.metadata.row_group(group).num_rows
                if at + rows > start:
                    for batch in table.iter_batches(batch_size=_ROWS, row_groups=[group]):
                        found = enumerate(batch.to_pylist(), start=at)
                        yield from ((number, row) for number, row in found if number >= start)
                        at += len(batch)
                else:
                    at += rows

    def _opened(self, shard: int) -> Any:
        try:
            return xopen(self.files[shard], "rb")
        except Exception as error:  # the errors of the Hub's client are many
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"shard {self.names[shard]}: cannot be opened: {reason}") from None


def read_features(file: str) -> Features:
    """The columns of a file, as `datasets` describes them."""
    with closing(xopen(file, "rb")) as data:
        return Features.from_arrow_schema(pq.read_schema(data))
