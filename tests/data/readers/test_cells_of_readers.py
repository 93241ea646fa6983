"""Cells that are no text, and images inside cells: alike in every reader and format."""

from __future__ import annotations

import base64
import csv
import json
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset
from PIL import Image

from domainclip.data.corpus import Corpus, load_corpus
from domainclip.data.images.decode import decode_image
from domainclip.errors import DataError
from tests.data.made_corpora import card, dicom_file, encoded, noise_image
from tests.data.made_shards import png, tar

Write = Callable[[Path, list[Any], str], tuple[str, Path]]  # (folder, cells, column) -> reader, path
MAPPING = {"raw": "a cat", "tokens": ["a", "cat"]}
TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a cat"}]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


def _rows(folder: Path, cells: list[Any], column: str) -> list[dict[str, Any]]:
    """A row for each cell, with an image; the class and the caption of a row are there, too."""
    folder.mkdir(parents=True, exist_ok=True)
    other = {"caption": "label", "label": "caption"}[column]
    rows = []
    for number, cell in enumerate(cells):
        noise_image(folder / f"{number}.png", number)
        rows.append({"image": f"{number}.png", column: cell, other: "thing"})
    return rows


def _csv(folder: Path, cells: list[Any], column: str) -> tuple[str, Path]:
    rows = _rows(folder, cells, column)
    with (folder / "t.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)  # what is no text is printed as Python prints it
    return "table", folder / "t.csv"


def _jsonl(folder: Path, cells: list[Any], column: str) -> tuple[str, Path]:
    lines = map(json.dumps, _rows(folder, cells, column))
    (folder / "t.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return "table", folder / "t.jsonl"


def _json(folder: Path, cells: list[Any], column: str) -> tuple[str, Path]:
    document = {"dataset": "flickr30k", "images": _rows(folder, cells, column)}
    (folder / "t.json").write_text(json.dumps(document), encoding="utf-8")
    return "table", folder / "t.json"


def _parquet(folder: Path, cells: list[Any], column: str) -> tuple[str, Path]:
    table = pyarrow.Table.from_pylist(_rows(folder, cells, column))
    pyarrow.parquet.write_table(table, folder / "t.parquet")
    return "table", folder / "t.parquet"


def _hub(folder: Path, cells: list[Any], column: str) -> tuple[str, Path]:
    rows = [{**row, "image": str(folder / row["image"])} for row in _rows(folder, cells, column)]
    Dataset.from_list(rows).save_to_disk(folder)
    return "hub", folder


def _shards(folder: Path, cells: list[Any], column: str) -> tuple[str, Path]:
    members = []
    for number, row in enumerate(_rows(folder, cells, column)):
        members += [(f"{number}.png", png(number)), (f"{number}.json", json.dumps(row).encode())]
    tar(folder / "shard.tar", members)
    return "webdataset", folder / "shard.tar"


def _dicom(folder: Path, cells: list[Any], column: str) -> tuple[str, Path]:
    rows = _rows(folder, cells, column)
    for number, row in enumerate(rows):
        row["image"] = dicom_file(folder / f"{number}.dcm", np.full((8, 8), number, np.uint16)).name
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return "dicom", folder


TYPED: list[Write] = [_jsonl, _json, _parquet, _hub, _shards, _dicom]


def _load(write: Write, folder: Path, cells: list[Any], column: str = "caption", **keys: Any) -> Corpus:
    reader, path = write(folder / "corpus", cells, column)
    chosen = {"columns": {"texts": "caption", "labels": "label"}, "max_unusable": 0.9, **keys}
    return load_corpus(card(reader=reader, **chosen), str(path))


def _all(corpus: Corpus, column: str) -> list[Any]:
    return [value for split in corpus.splits.values() for value in split[column][:]]


@pytest.mark.parametrize(
    ("write", "source"),
    [(_csv, "t.csv: row"), (_dicom, "metadata.jsonl: row"), (_hub, "data set {folder}: train row")],
)
def test_a_wrong_cell_is_named_by_its_file_row_and_column_and_not_quoted(
    tmp_path: Path, write: Write, source: str
) -> None:
    columns = {"texts": "caption", "labels": ["label"]}  # one column a class: 1, 0 or -1
    with pytest.raises(DataError) as caught:
        _load(write, tmp_path, ["1", "Jane Doe"], "label", columns=columns)
    place = source.format(folder=tmp_path / "corpus")
    assert str(caught.value) == f"{place} 2, column label: not 1, 0, -1 (unknown) or blank"


@pytest.mark.parametrize("write", [_csv, *TYPED])
@pytest.mark.parametrize(
    "cell", [["a cat", "a dog"], str(["a cat", "a dog"]), '["a cat", "a dog"]', MAPPING, TURNS, str(TURNS)]
)
def test_captions_of_known_forms_are_read(tmp_path: Path, write: Write, cell: Any) -> None:
    corpus = _load(write, tmp_path, [cell, cell])
    texts = ["a cat"] if cell in (MAPPING, TURNS, str(TURNS)) else ["a cat", "a dog"]
    assert _all(corpus, "texts") == [texts, texts]
    assert corpus.unusable == []


@pytest.mark.parametrize("write", [_csv, *TYPED])
@pytest.mark.parametrize("column", ["caption", "label"])
def test_cells_of_other_forms_are_counted_by_the_name_of_their_column(
    tmp_path: Path, write: Write, column: str
) -> None:
    bad = {"caption": [["Jane", "Doe"]], "label": [0, 1, 0]}[column]
    with pytest.raises(DataError) as caught:
        _load(write, tmp_path, [bad, bad], column, max_unusable=0.01)
    fault = {"caption": "a list, not text", "label": "a list of numbers, not class names"}[column]
    count = f"2 of 2 items are unusable (100.0%, limit 1.0%): 2 column {column}: {fault}; first"
    assert count in str(caught.value)
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("write", [_csv, _jsonl, _json, _hub, _shards, _dicom])
def test_a_single_bad_cell_costs_its_item_only(tmp_path: Path, write: Write) -> None:
    corpus = _load(write, tmp_path, ["a cat", "['a cat', 'Jane Do", "a dog"])
    assert sorted(text for texts in _all(corpus, "texts") for text in texts) == ["a cat", "a dog"]
    (bad,) = corpus.unusable
    assert bad.reason == "column caption: a list, mapping or object that is cut or cannot be read, not text"


def test_binary_columns_of_parquet(tmp_path: Path) -> None:
    assert _all(_load(_parquet, tmp_path / "a", [b"a cat", b"a dog"]), "texts") == [["a cat"], ["a dog"]]
    corpus = _load(_parquet, tmp_path / "b", [b"a cat", b"\xff\xd8\xff\xe0Jane"])
    assert [bad.reason for bad in corpus.unusable] == ["column caption: bytes that are not UTF-8 text"]


@pytest.mark.parametrize("write", TYPED)
def test_numbers_are_classes_and_no_captions(tmp_path: Path, write: Write) -> None:
    assert sorted(_all(_load(write, tmp_path / "a", [3, 4], "label"), "labels")) == [["3"], ["4"]]
    with pytest.raises(DataError, match="2 column caption: a number, not text"):
        _load(write, tmp_path / "b", [3, 4])


@pytest.mark.parametrize("write", [_csv, *TYPED])
def test_words_for_a_missing_caption_are_empty(tmp_path: Path, write: Write) -> None:
    words = ["NA", "None", "null", "<NA>", "nan", "-", "N/A", "#N/A", "NULL", "\\N"]
    keys: dict[str, Any] = {"columns": {"texts": "caption", "labels": ""}}
    corpus = _load(write, tmp_path / "a", [*words, "Nan", "NA cat"], **keys)
    assert sorted(text for texts in _all(corpus, "texts") for text in texts) == ["NA cat", "Nan"]
    assert Counter(bad.reason for bad in corpus.unusable) == {"empty caption": 10}
    note = "captions are words for a missing value, and count as empty (corpus.captions.empty_words)"
    assert f"8 {note}" in corpus.notes  # <NA> and nan are empty in every column
    own = _load(write, tmp_path / "b", ["NA", "unknown"], captions={"empty_words": ["unknown"]}, **keys)
    assert _all(own, "texts") == [["NA"]]


def test_words_for_a_missing_value_in_a_template_and_as_classes(tmp_path: Path) -> None:
    corpus = _load(_csv, tmp_path, ["NA", "a cat"], captions={"template": "{label}: {caption}"})
    assert sorted(_all(corpus, "texts")) == [["thing"], ["thing: a cat"]]
    assert _all(_load(_csv, tmp_path / "b", ["None", "cat"], "label"), "labels") == [["None"], ["cat"]]


IMAGE = encoded(Image.new("RGB", (4, 4), "red"))
DIGITS = base64.b64encode(IMAGE).decode()


@pytest.mark.parametrize(
    "cell",
    [
        *(
            DIGITS,
            f"data:image/png;base64,{DIGITS}",
            DIGITS.rstrip("="),
            base64.urlsafe_b64encode(IMAGE).decode(),
        ),
        *({"bytes": DIGITS, "path": None}, str({"bytes": IMAGE, "path": "x.png"}), str(IMAGE)),
    ],
)
def test_images_that_are_written_out_in_a_cell(tmp_path: Path, cell: Any) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": cell, "caption": "red"}), encoding="utf-8")
    (row,) = [
        row for split in load_corpus(card(), str(tmp_path / "t.jsonl")).splits.values() for row in split
    ]
    assert decode_image(row["image"]).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        (DIGITS[:-7] + "!", "an image in base64 that is cut or cannot be read"),
        (f"data:image/png;base64,{DIGITS[:-1]}*", "an image in base64 that is cut or cannot be read"),
        (str(IMAGE)[:-9], "bytes that are printed as text, and cut or cannot be read"),
        ("Jane Doe " * 90, "not a file name: too long"),
        ("A" * 5000, "not a file name: too long"),
        (
            "https://clinic.example/Doe.png",
            "an address (https://), not a file name: images are not downloaded",
        ),
        ({"url": "x"}, "a mapping without path and bytes, not an image"),
        ({"bytes": [255, 216]}, "bytes of an image that are not bytes"),
        ([255, 216], "a list, not one value"),
    ],
)
def test_image_cells_that_cannot_be_read_are_counted_and_never_quoted(
    tmp_path: Path, cell: Any, fault: str
) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": cell, "caption": "red"}), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_corpus(card(), str(tmp_path / "t.jsonl"))
    assert f"1 column image: {fault}; first: row 1 (column image: {fault});" in str(caught.value)
    assert len(str(caught.value)) < 600
    assert "Doe" not in str(caught.value)


def test_images_that_share_one_inner_path_are_different_images(tmp_path: Path) -> None:
    data = [encoded(Image.new("RGB", (4, 4), (i, 0, 0))) for i in range(40)]
    rows = [
        {"image": {"bytes": part, "path": "image.png"}, "caption": f"c {i}"} for i, part in enumerate(data)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([*rows, rows[0]]), tmp_path / "t.parquet")
    merged = load_corpus(card(captions={"merge_captions": True}), str(tmp_path / "t.parquet"))
    assert len(set(_all(merged, "group"))) == len(_all(merged, "group")) == 40
    assert max(map(len, merged.splits.values())) < 40  # not all in the split of one group
    texts = sorted(text for texts in _all(merged, "texts") for text in texts)
    assert texts == sorted(row["caption"] for row in rows)
    Dataset.from_list(
        rows, features=datasets.Features(image=datasets.Image(), caption=datasets.Value("string"))
    ).save_to_disk(tmp_path / "hub")
    hub = load_corpus(card(reader="hub", captions={"merge_captions": True}), str(tmp_path / "hub"))
    assert len(_all(hub, "texts")) == 40


@pytest.mark.parametrize("written", ["sub\\é.png", "sub/e\u0301.png", "sub/é.png", "./sub\\e\u0301.png"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_as_windows_and_macos_write_them(tmp_path: Path, written: str, form: Any) -> None:
    noise_image(tmp_path / "sub" / unicodedata.normalize(form, "é.png"))
    (tmp_path / "t.csv").write_text(f"image,caption\n{written},x\n", encoding="utf-8")
    assert _all(load_corpus(card(), str(tmp_path / "t.csv")), "texts") == [["x"]]


def test_names_of_windows_lead_nowhere_else(tmp_path: Path) -> None:
    noise_image(tmp_path / "secret.png")
    (tmp_path / "corpus").mkdir()
    for name, message in (("..\\secret.png", "lies outside"), ("C:\\data\\secret.png", "1 missing file")):
        (tmp_path / "corpus" / "t.csv").write_text(f"image,caption\n{name},x\n", encoding="utf-8")
        with pytest.raises(DataError, match=message):
            load_corpus(card(), str(tmp_path / "corpus" / "t.csv"))
