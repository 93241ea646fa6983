"""Tables and texts by id that processes map into memory: the same values, and no copy of them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from domainclip.data.files import mapped_tables
from domainclip.data.files.mapped_tables import MappedTexts, map_dataset, write_dataset, write_texts
from domainclip.data.schema import features
from tests.data.curation.curation_inputs import items


def _rows() -> Dataset:
    return items([[f"caption {i}", "another"] for i in range(25)], [["a"], []] * 12 + [["b"]])


@pytest.mark.parametrize("rows_of_batch", [4, 1000])
def test_a_mapped_data_set_has_the_same_rows(
    tmp_path: Path, rows_of_batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped_tables, "_ROWS", rows_of_batch)
    before = _rows().select([3, 1, 24, *range(5, 20)])
    write_dataset(before, tmp_path / "rows.arrow")
    after = map_dataset(tmp_path / "rows.arrow")
    assert after.to_list() == before.to_list()
    assert after.features == before.features == features()
    # The rows are a file: a copy in memory would have none.
    assert [file["filename"] for file in after.cache_files] == [str(tmp_path / "rows.arrow")]
    assert before.cache_files == []


def test_images_inside_the_table_and_no_rows_at_all(tmp_path: Path) -> None:
    row = _rows()[0] | {"image": {"path": None, "bytes": b"bytes"}, "views": [{"path": "a", "bytes": None}]}
    for name, rows in (("images", [row]), ("none", [])):
        columns = {column: [row[column] for row in rows] for column in features()}
        before = Dataset.from_dict(columns, features=features())
        write_dataset(before, tmp_path / f"{name}.arrow")
        assert map_dataset(tmp_path / f"{name}.arrow").to_list() == rows


def test_texts_are_looked_up_by_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_tables, "_ROWS", 7)
    texts = {f"id {i}": f"text {i}" for i in range(30)} | {"é": "ü"}
    write_texts(texts.items(), tmp_path / "texts.arrow")
    mapped = MappedTexts(tmp_path / "texts.arrow")
    assert dict(mapped) == dict(mapped.items()) == texts
    assert list(mapped.values()) == list(texts.values())
    assert mapped["id 17"] == "text 17"
    assert mapped.get("id 31", "none") == "none"
    assert all(isinstance(array, np.memmap) for array in mapped._index)
    # A process that receives it maps the files itself.
    received = pickle.dumps(mapped)
    assert len(received) < 500
    assert pickle.loads(received)["é"] == "ü"


def test_ids_with_one_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_tables, "_hash", lambda id: 5)
    write_texts([("a", "1"), ("b", "2"), ("c", "3")], tmp_path / "texts.arrow")
    mapped = MappedTexts(tmp_path / "texts.arrow")
    assert [mapped[id] for id in "cab"] == ["3", "1", "2"]
    assert "d" not in mapped


def test_no_texts(tmp_path: Path) -> None:
    write_texts([], tmp_path / "texts.arrow")
    assert dict(MappedTexts(tmp_path / "texts.arrow")) == {}
    assert "a" not in MappedTexts(tmp_path / "texts.arrow")


def test_texts_are_looked_up_in_order_where_rows_were_left_out_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {str(i): f"text {i}" for i in range(100)}
    write_texts(texts.items(), tmp_path / "t.arrow")
    single: list[str] = []
    find = MappedTexts.row_of
    monkeypatch.setattr(MappedTexts, "row_of", lambda self, id: single.append(id) or find(self, id))
    for ids, found_alone in (
        (list(texts), 0),
        ([id for id in texts if int(id) % 5], 20),  # one for each gap
        (list(texts)[50:], 1),
        (["7", "8", "3", "4", "9", "99", "98"], 5),
    ):
        single.clear()
        rows = mapped_tables.look_up(MappedTexts(tmp_path / "t.arrow"), ids)
        assert list(rows) == [texts[id] for id in ids]
        assert len(single) == found_alone
    with pytest.raises(KeyError):
        list(mapped_tables.look_up(MappedTexts(tmp_path / "t.arrow"), ["1", "none"]))
