from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from domainclip import registry
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers.table import Table
from domainclip.errors import DataError, ExitCode, RecipeError
from tests.data.made_corpora import card, encoded, noise_image, table

TEST_ONLY = {"splits": {"train": 0, "validation": 0, "test": 1}}


def _read(
    path: Path, keys: dict[str, Any] | None = None, **options: Any
) -> tuple[list[dict[str, Any]], ReadLog]:
    log = ReadLog()
    splits = Table(**options).read(card(**{**TEST_ONLY, **(keys or {})}), path, log)
    return [dict(row) for row in splits["test"]], log


def test_a_folder_or_its_table(tmp_path: Path) -> None:
    file = table(tmp_path, [{"file_name": "a.png", "text": "x"}, {"file_name": "b.png", "text": "y"}])
    from_folder, log = _read(tmp_path)
    from_file, _ = _read(file)
    assert from_folder == from_file
    assert [row["texts"] for row in from_folder] == [["x"], ["y"]]
    assert from_folder[0]["image"]["path"] == str((tmp_path / "a.png").resolve())
    assert log.guessed == {"image": "file_name", "texts": "text"}


@pytest.mark.parametrize("name", ["metadata.tsv", "metadata.jsonl", "metadata.parquet"])
def test_other_kinds_of_table(tmp_path: Path, name: str) -> None:
    rows = [{"file_name": "a.png", "text": "x, y"}]
    if name.endswith("tsv"):
        (tmp_path / name).write_text("file_name\ttext\na.png\tx, y\n", encoding="utf-8")
    elif name.endswith("jsonl"):
        (tmp_path / name).write_text(json.dumps(rows[0]), encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
    assert _read(tmp_path)[0][0]["texts"] == ["x, y"]


def test_images_inside_a_parquet_file(tmp_path: Path) -> None:
    from PIL import Image

    data = encoded(Image.new("RGB", (2, 2), "red"))
    rows = [{"image": {"bytes": data, "path": "x.png"}, "text": "red"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    row = _read(tmp_path / "t.parquet")[0][0]
    assert row["image"] == {"path": "x.png", "bytes": data}
    assert row["id"] == "x.png"


def test_images_as_plain_bytes_in_a_parquet_file(tmp_path: Path) -> None:
    from PIL import Image

    data = encoded(Image.new("RGB", (2, 2), "red"))
    pyarrow.parquet.write_table(pyarrow.table({"image": [data], "text": ["red"]}), tmp_path / "t.parquet")
    row = _read(tmp_path / "t.parquet")[0][0]
    assert row["image"] == {"path": "", "bytes": data}
    assert row["id"] == "row 1"


def test_half_letters_are_replaced_and_counted(tmp_path: Path) -> None:
    rows = [
        {"image": f"{i}.png", "text": "cut \ud83d emoji" if i else "whole", "site": "\udc00"} for i in (0, 1)
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found, log = _read(tmp_path, {"columns": {"meta": ["site"]}})
    assert [row["texts"] for row in found] == [["whole"], ["cut \N{REPLACEMENT CHARACTER} emoji"]]
    assert json.loads(found[0]["meta"]) == {"site": "\N{REPLACEMENT CHARACTER}"}
    assert (
        "1 captions and class names contain broken characters (shown as \N{REPLACEMENT CHARACTER})"
        in log.notes
    )


def test_some_rows_only(tmp_path: Path) -> None:
    rows = [{"file_name": f"{i}.png", "text": str(i), "year": str(2000 + i % 3)} for i in range(6)]
    file = table(tmp_path, rows)
    found, log = _read(file, where={"year": [2000, "2002"]})
    assert [row["texts"] for row in found] == [["0"], ["2"], ["3"], ["5"]]
    assert "4 of 6 rows are selected (corpus.options.where)" in log.notes
    # Places are those of the table, whatever was taken.
    assert list(log.locations.values()) == ["row 1", "row 3", "row 4", "row 6"]


def test_two_kinds_of_rows(tmp_path: Path) -> None:
    rows = [
        {"file_name": "a.png", "text": "a dog runs", "kind": "caption"},
        {"file_name": "b.png", "text": "goldfish", "kind": "label"},
    ]
    keys = {"columns": {"texts": "text", "labels": "text"}}
    found, _ = _read(
        table(tmp_path, rows), keys, texts_where={"kind": "caption"}, labels_where={"kind": ["label"]}
    )
    assert [(row["texts"], row["labels"]) for row in found] == [(["a dog runs"], []), ([], ["goldfish"])]


def test_images_may_start_in_a_folder_below(tmp_path: Path) -> None:
    file = table(tmp_path, [{"file_name": "a.png", "text": "x"}], images=False)
    noise_image(tmp_path / "images" / "a.png")
    assert _read(file, image_folder="images")[0][0]["image"]["path"].endswith("images/a.png")


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "link.png", "images/../../x", "a\0b.png"])
def test_names_that_reach_outside_are_refused(tmp_path: Path, name: str) -> None:
    noise_image(tmp_path / "outside.png")
    root = tmp_path / "corpus"
    root.mkdir()
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": "x"}), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        _read(root)
    assert str(caught.value) == (
        f"metadata.jsonl: row 1, column file_name: the file lies outside the corpus folder {root}: move or copy it inside"
    )
    assert caught.value.code == ExitCode.DATA


def test_an_absolute_name_inside_is_fine(tmp_path: Path) -> None:
    noise_image(tmp_path / "a.png")
    row = {"file_name": str(tmp_path / "a.png"), "text": "x"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row), encoding="utf-8")
    assert _read(tmp_path)[0][0]["image"]["path"] == str((tmp_path / "a.png").resolve())


def test_a_folder_without_table(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _read(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: no metadata.csv, .tsv, .jsonl or .parquet in this folder: name the table in "
        "corpus.path, or set corpus.reader=folder for class folders"
    )


def test_a_condition_on_a_column_that_is_not_there(tmp_path: Path) -> None:
    file = table(tmp_path, [{"file_name": "a.png", "text": "x", "kind": "y"}])
    with pytest.raises(DataError) as caught:
        _read(file, labels_where={"knd": "y"})
    assert str(caught.value) == (
        'metadata.csv: no column "knd" (corpus.options.labels_where): did you mean "kind"? '
        "there are: file_name, text, kind."
    )


def test_an_unknown_option() -> None:
    with pytest.raises(RecipeError) as caught:
        registry.build("readers", "table", {"seperator": ";"}, where="corpus.options")
    assert str(caught.value) == 'corpus.options.seperator: unknown option: did you mean "separator"?'


def test_a_path_inside_a_parquet_file_may_not_reach_outside_either(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": None, "path": "/etc/passwd"}, "text": "x"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    with pytest.raises(DataError) as caught:
        _read(tmp_path / "t.parquet")
    assert str(caught.value) == (
        f"t.parquet: row 1, column image: the file lies outside the corpus folder {tmp_path}: move or copy it inside"
    )
