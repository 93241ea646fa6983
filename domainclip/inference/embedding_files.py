"""Files of embeddings: Parquet, NumPy or CSV, written as the rows arrive, complete or not at all.

Parquet holds the facts of the model in its metadata. Beside an .npy or .csv lies NAME.json with them, and, of
an .npy, with the ids of its rows.
Legend: n rows, d embedding width.
"""

from __future__ import annotations

import csv
import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SUFFIXES = (".parquet", ".npy", ".csv")
_METADATA_KEY = b"domainclip"


class EmbeddingWriter(ABC):
    """Writes rows to a draft, which takes the name of the file when the block ends without an error."""

    def __init__(self, file: Path, width: int, facts: Mapping[str, Any]) -> None:
        self.file, self.width, self.facts = file, width, dict(facts)
        self.draft = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
        self.rows = 0

    def __enter__(self) -> EmbeddingWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
            if kind is None:
                self.draft.rename(self.file)
                self.write_facts()
        finally:
            self.draft.unlink(missing_ok=True)

    def write(self, ids: Sequence[str], embeddings: np.ndarray) -> None:
        """Append rows: ids (n,) and embeddings (n, d) float32."""
        if len(ids):
            self.append(ids, embeddings)
            self.rows += len(ids)

    @abstractmethod
    def append(self, ids: Sequence[str], embeddings: np.ndarray) -> None:
        """Write at least one row."""

    @abstractmethod
    def close(self) -> None:
        """End the draft."""

    def write_facts(self) -> None:
        """Write the facts of the model beside a file that cannot hold them."""
        text = json.dumps({**self.facts, "rows": self.rows}, ensure_ascii=False, indent=1)
        self.file.with_name(f"{self.file.name}.json").write_text(text + "\n", encoding="utf-8")


class ParquetWriter(EmbeddingWriter):
    """Columns `id` and `embedding`, a list of d float32."""

    def __init__(self, file: Path, width: int, facts: Mapping[str, Any]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        super().__init__(file, width, facts)
        vectors = pa.list_(pa.float32(), width)
        metadata = {_METADATA_KEY: json.dumps(self.facts, ensure_ascii=False)}
        self.schema = pa.schema([("id", pa.string()), ("embedding", vectors)], metadata=metadata)
        self.writer = pq.ParquetWriter(self.draft, self.schema)

    def append(self, ids: Sequence[str], embeddings: np.ndarray) -> None:
        """Write a row group."""
        import pyarrow as pa

        vectors = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), self.width)
        self.writer.write_table(pa.table([pa.array(list(ids)), vectors], schema=self.schema))

    def close(self) -> None:
        """Write the footer."""
        self.writer.close()

    def write_facts(self) -> None:
        """They are in the file."""


class NumpyWriter(EmbeddingWriter):
    """(n, d) float32; the header, which has room for any n, is written again at the end."""

    def __init__(self, file: Path, width: int, facts: Mapping[str, Any]) -> None:
        super().__init__(file, width, facts)
        self.ids: list[str] = []
        self.stream = self.draft.open("wb")
        self._write_header()

    def append(self, ids: Sequence[str], embeddings: np.ndarray) -> None:
        """Append the rows to the array."""
        self.ids += ids
        self.stream.write(np.ascontiguousarray(embeddings, "<f4").tobytes())

    def close(self) -> None:
        """Write the number of rows into the header."""
        self.stream.seek(0)
        self._write_header()
        self.stream.close()
        self.facts["ids"] = self.ids

    def _write_header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.rows, self.width)}
        np.lib.format.write_array_header_1_0(self.stream, header)


class CsvWriter(EmbeddingWriter):
    """Columns `id`, `0`, `1` … with as many digits as a float32 needs."""

    def __init__(self, file: Path, width: int, facts: Mapping[str, Any]) -> None:
        super().__init__(file, width, facts)
        self.stream = self.draft.open("w", encoding="utf-8", newline="")
        self.table = csv.writer(self.stream)
        self.table.writerow(["id", *map(str, range(width))])

    def append(self, ids: Sequence[str], embeddings: np.ndarray) -> None:
        """Append the rows to the table."""
        self.table.writerows(
            [id, *(np.format_float_positional(value, trim="-") for value in row)]
            for id, row in zip(ids, embeddings, strict=True)
        )

    def close(self) -> None:
        """Close the file."""
        self.stream.close()


def open_writer(file: Path, width: int, facts: Mapping[str, Any]) -> EmbeddingWriter:
    """The writer for the suffix of a file: one of `SUFFIXES`.

    Raises: OSError when the file cannot be written.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return ParquetWriter(file, width, facts)
    return NumpyWriter(file, width, facts) if suffix == ".npy" else CsvWriter(file, width, facts)
