"""Columns that are read on access: the same values as in memory, for few pairs and for many."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from domainclip.data.batching import item_columns
from domainclip.data.batching.item_columns import DerivedColumn, derived_column
from domainclip.data.batching.pairs import Pairs
from domainclip.data.files.mapped_tables import map_dataset, write_dataset
from domainclip.data.text.captions import Captions
from tests.data.curation.curation_inputs import items


def _joined(id: str, texts: list[str]) -> str:
    return f"{id}: {' and '.join(texts)}"


@pytest.fixture
def rows(tmp_path: Path) -> Dataset:
    write_dataset(items([[f"caption {i}", "b"][: 1 + i % 2] for i in range(12)]), tmp_path / "rows.arrow")
    return map_dataset(tmp_path / "rows.arrow")


@pytest.mark.parametrize("order", [range(12), [7, 3, 3, 11], []])
def test_a_column_on_access_equals_one_in_memory(rows: Dataset, order: Any) -> None:
    chosen = rows.select(order)
    in_memory = derived_column(chosen, ["id", "texts"], _joined)
    column = DerivedColumn(chosen, ("id", "texts"), _joined)
    assert isinstance(in_memory, list)
    assert in_memory == list(column) == [column[at] for at in range(len(column))] == column[:]
    assert [f"{row}: caption {row}" for row in order] == [text.split(" and ")[0] for text in column]
    with pytest.raises(IndexError):
        column[len(order)]


def test_a_column_of_many_items_is_sent_without_its_rows(
    rows: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_columns, "IN_MEMORY", 5)
    column = derived_column(rows, ["id", "texts"], _joined)
    assert isinstance(column, DerivedColumn)
    assert column[-1] == "11: caption 11 and b"
    assert pickle.loads(pickle.dumps(column))[3] == column[3]


def _drawn(rows: Dataset) -> Iterator[tuple[Any, ...]]:
    pairs = Pairs(rows, _pixels, captions=Captions(policy="random"), pixels=False)
    for epoch in range(3):
        for index in range(len(pairs)):
            pair = pairs[epoch, index]
            yield pair.text, pair.group, pair.shown, pair.captions.tolist(), pair.id
    yield list(pairs.texts()), list(pairs.ids)


def _pixels(image: Image.Image) -> dict[str, np.ndarray]:
    return {"pixels": np.asarray(image)}


def test_many_pairs_are_drawn_as_few_are(rows: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    few = list(_drawn(rows))
    monkeypatch.setattr(item_columns, "IN_MEMORY", 5)
    assert list(_drawn(rows)) == few
    # Control: nothing of each pair is held.
    assert Pairs(rows, _pixels, pixels=False).captions is None
