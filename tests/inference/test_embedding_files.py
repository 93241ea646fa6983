"""Files of embeddings hold what was written, or are not there at all."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from domainclip.inference.embedding_files import SUFFIXES, open_writer

ROWS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
IDS = ["a.png", "b,c.png", "é.png", "d.png", "e.png"]
FACTS = {"fingerprint": "f", "width": 3}


def written(folder: Path, suffix: str) -> Path:
    file = folder / f"x{suffix}"
    with open_writer(file, 3, FACTS) as writer:
        for rows in (slice(0, 2), slice(2, 2), slice(2, 5)):
            writer.write(IDS[rows], ROWS[rows])
    return file


def test_parquet(tmp_path: Path) -> None:
    table = pq.read_table(written(tmp_path, ".parquet"))
    assert table["id"].to_pylist() == IDS
    np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), ROWS)
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: float>[3]"
    assert json.loads(table.schema.metadata[b"domainclip"]) == FACTS
    assert [file.name for file in tmp_path.iterdir()] == ["x.parquet"]


def test_numpy(tmp_path: Path) -> None:
    array = np.load(written(tmp_path, ".npy"))
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, ROWS)
    assert json.loads((tmp_path / "x.npy.json").read_text()) == {**FACTS, "ids": IDS, "rows": 5}


def test_csv_has_every_bit(tmp_path: Path) -> None:
    with written(tmp_path, ".csv").open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["id", "0", "1", "2"]
    assert [row[0] for row in rows] == IDS
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], np.float32), ROWS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_error_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(RuntimeError):
        _fail(tmp_path / f"x{suffix}")
    assert list(tmp_path.iterdir()) == []


def _fail(file: Path) -> None:
    with open_writer(file, 3, FACTS) as writer:
        writer.write(IDS, ROWS)
        raise RuntimeError
