"""Rows of Parquet files from any row on, local or behind hf://; the footer locates the row groups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.parquet as pq
from datasets import Features
from datasets.utils.file_utils import xopen

from domainclip.data.quarantine import ReadLog, UnusableItem
from domainclip.data.readers.sources.image_cells import image_from_cell
from domainclip.data.rows import SourceRow
from domainclip.data.text.cells import CellFault
from domainclip.errors import DataError

_ROWS = 64  # decoded at once


@dataclass(frozen=True)
class ParquetShards:
    """The files of one split, opened for a stream; workers can unpickle it."""

    files: tuple[str, ...]
    image: str  # the column with the images, as {bytes, path} or bytes

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files, without their folders."""
        return tuple(file.rpartition("/")[2] for file in self.files)

    def counts(self) -> tuple[int, ...]:
        """The number of rows of each file, from its footer.

        Raises: DataError for a file that is not Parquet.
        """
        return tuple(self._count(shard) for shard in range(len(self.files)))

    def __call__(self, shard: int, start: int, log: ReadLog) -> Iterator[SourceRow | None]:
        """The rows of a file from the `start`-th on; None for a row without an image."""
        name = self.names[shard]
        for at, row in self._rows(shard, start):
            location = f"shard {shard + 1} row {at + 1}"
            try:
                data = image_from_cell(row.pop(self.image))["bytes"]
            except CellFault as fault:
                log.unusable.append(UnusableItem(location, f"column {self.image}: {fault}"))
                yield None
                continue
            # A path would be of the machine that wrote the file.
            if not data:
                log.unusable.append(UnusableItem(location, "missing image"))
                yield None
                continue
            yield SourceRow(row, location, {"path": None, "bytes": data}, f"{name}/{at}")

    def _count(self, shard: int) -> int:
        with closing(self._opened(shard)) as data, _refusing_broken(self.names[shard]):
            return int(pq.ParquetFile(data).metadata.num_rows)

    def _rows(self, shard: int, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
        with closing(self._opened(shard)) as data, _refusing_broken(self.names[shard]):
            table, at = pq.ParquetFile(data), 0
            for group in range(table.num_row_groups):
                rows = table.metadata.row_group(group).num_rows
                if at + rows > start:
                    for batch in table.iter_batches(batch_size=_ROWS, row_groups=[group]):
                        numbered = enumerate(batch.to_pylist(), start=at)
                        yield from ((number, row) for number, row in numbered if number >= start)
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
    """The columns of a file, as `datasets` describes them.

    Raises: DataError for a file that is not Parquet.
    """
    with closing(xopen(file, "rb")) as data, _refusing_broken(file.rpartition("/")[2]):
        return Features.from_arrow_schema(pq.read_schema(data))


@contextmanager
def _refusing_broken(name: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError:  # of the schema, also of the fields of a struct
        raise DataError(f"shard {name}: the name of a column or field is not UTF-8") from None
    except pyarrow.ArrowException as error:
        raise DataError(f"shard {name}: not a Parquet file: {str(error).splitlines()[0]}") from None
