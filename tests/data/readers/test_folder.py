from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import DatasetDict

from domainclip.data.corpus import load_corpus
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers.folder import Folder
from domainclip.errors import DataError, RecipeError
from tests.data.made_corpora import card, dicom_file, noise_image
from tests.data.made_dicom import report_file


def _read(path: Path, **keys: Any) -> tuple[DatasetDict, ReadLog]:
    log = ReadLog()
    return Folder().read(card(**keys), path, log), log


def _all(splits: DatasetDict) -> list[dict[str, Any]]:
    return sorted((dict(row) for rows in splits.values() for row in rows), key=lambda row: row["id"])


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    for name in ("ice_cream/b.JPG", "ice_cream/a.png", "bread/deep/c.png", ".hidden/d.png", "bread/notes.md"):
        noise_image(tmp_path / name) if not name.endswith(".md") else (tmp_path / name).write_text(
            "x", encoding="utf-8"
        )
    splits, log = _read(tmp_path)
    rows = _all(splits)
    assert [(row["id"], row["labels"], row["texts"]) for row in rows] == [
        ("bread/deep/c.png", ["bread"], ["bread"]),
        ("ice_cream/a.png", ["ice cream"], ["ice cream"]),
        ("ice_cream/b.JPG", ["ice cream"], ["ice cream"]),
    ]
    assert log.notes == [
        "captions: the names of the class folders (set corpus.captions.template to change them)"
    ]


def test_a_template_around_the_class(tmp_path: Path) -> None:
    noise_image(tmp_path / "ice_cream/a.png")
    splits, log = _read(tmp_path, captions={"template": "a photo of {label}, {name}"})
    assert _all(splits)[0]["texts"] == ["a photo of ice cream, a"]
    assert log.notes == []


def test_folders_of_splits(tmp_path: Path) -> None:
    for name in ("train/cat/a.png", "Val/cat/b.png", "test/dog/c.png"):
        noise_image(tmp_path / name)
    splits, log = _read(tmp_path)
    assert {name: rows["id"][:] for name, rows in splits.items()} == {
        "train": ["train/cat/a.png"],
        "validation": ["Val/cat/b.png"],
        "test": ["test/dog/c.png"],
    }
    assert splits["test"]["labels"][0] == ["dog"]
    # Files are numbered in sorted order, capitals first.
    assert log.locations == {
        "Val/cat/b.png": "file 1",
        "test/dog/c.png": "file 2",
        "train/cat/a.png": "file 3",
    }


def test_text_files_beside_images(tmp_path: Path) -> None:
    noise_image(tmp_path / "a.png")
    noise_image(tmp_path / "b.png")
    (tmp_path / "a.txt").write_text("\ufeffA dog runs.\n\n  Ein Hund.\n", encoding="utf-8")
    splits, log = _read(tmp_path, splits={"train": 1, "validation": 0, "test": 0})
    assert [row["texts"] for row in _all(splits)] == [["A dog runs.", "Ein Hund."]]
    assert [(bad.location, bad.reason) for bad in log.unusable] == [("file 2", "empty caption")]


def test_captions_come_before_the_class(tmp_path: Path) -> None:
    noise_image(tmp_path / "dog/a.png")
    (tmp_path / "dog/a.txt").write_text("It runs.", encoding="utf-8")
    assert _all(_read(tmp_path)[0])[0]["texts"] == ["It runs."]


def test_text_in_another_encoding(tmp_path: Path) -> None:
    noise_image(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError) as caught:
        _read(tmp_path)
    assert str(caught.value) == "file 1: byte 3 of its .txt is not UTF-8: set corpus.options.encoding"
    assert Folder(encoding="latin-1").read(card(), tmp_path, ReadLog())


def test_links_that_lead_outside_are_refused(tmp_path: Path) -> None:
    noise_image(tmp_path / "secret.png")
    root = tmp_path / "corpus"
    root.mkdir()
    (root / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError) as caught:
        _read(root)
    assert str(caught.value) == (
        f"file 1: the file lies outside the corpus folder {root}: move or copy it inside"
    )


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _read(tmp_path / "none")
    assert str(caught.value) == f"{tmp_path / 'none'}: no such folder: check corpus.path"
    with pytest.raises(DataError) as caught:
        _read(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: no images (.jpg, .png, .tif, .dcm, .fits …) in this folder or below"
    )
    with pytest.raises(RecipeError) as recipe:
        _read(tmp_path, columns={"image": "x"})
    assert str(recipe.value) == (
        "corpus.columns: a folder has no columns but text, label, name and its levels, folder_1, folder_2 …: leave the others out, "
        "or use a table"
    )


def test_every_kind_of_image_is_taken_and_what_is_left_is_counted(tmp_path: Path) -> None:
    names = ("a.ppm", "b.jfif", "c.j2k", "d.fits.gz", "e.fts", "f.PGM", "g.ico", "h.dicom", "i.fz", "j.mpo")
    others = ("k.heic", "l.eps", "m.heic", "IM0001", "n.DOE_JANE", "o.gz")
    texts = [f"{name[0]}.txt" for name in names]
    for name in (*names, *others, *texts, "p.csv", "q.md", "r.pdf"):
        (tmp_path / name).write_text(f"of {name}", encoding="utf-8")
    splits, log = _read(tmp_path)
    rows = _all(splits)
    assert [row["id"] for row in rows] == list(names)
    assert [row["texts"] for row in rows] == [[f"of {text}"] for text in texts]
    left = "1 .eps, 1 .gz, 2 .heic, 1 of other kinds, 1 without a suffix"
    assert log.notes == [f"files that are not images are left out: {left}"]


def test_dicom_files_without_a_suffix_are_read_and_damaged_ones_are_counted(tmp_path: Path) -> None:
    stored = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for name in ("a/IM0001", "b/1.2.840.3", "a/IM0002"):
        dicom_file(tmp_path / name, stored, SeriesNumber=len(name))
        (tmp_path / f"{name}.txt").write_text("Clear.", encoding="utf-8")
    report_file(tmp_path / "a/SR0001", "1.2")
    (tmp_path / "a/IM0002").write_bytes(b"")
    (tmp_path / "a/README").write_text("A text.", encoding="utf-8")
    splits, log = _read(tmp_path)
    assert sorted(row["id"] for row in _all(splits)) == ["a/IM0001", "a/IM0002", "b/1.2.840.3"]
    assert _all(splits)[0]["texts"] == ["Clear."]
    assert log.notes == ["files that are not images are left out: 2 without a suffix"]
    corpus = load_corpus(card(reader="folder", max_unusable=0.5), str(tmp_path))
    assert [bad.reason for bad in corpus.unusable] == ["empty file"]
    (tmp_path / "a/IM0001").unlink()
    (tmp_path / "b/1.2.840.3").unlink()
    noise_image(tmp_path / "a/c.png")
    _, log = _read(tmp_path)  # without such images, an empty file is any file
    assert "files that are not images are left out: 3 without a suffix" in log.notes


def test_texts_are_matched_by_stem_in_any_form_of_letters(tmp_path: Path) -> None:
    for image, text in (
        ("a.png", "a.TXT"),
        ("b.png", "b.png.txt"),
        ("\u00e9.png", "e\u0301.txt"),
        ("1.2.840.7.png", "1.2.840.7.txt"),
        ("fig. 3.png", "fig. 3.txt"),
    ):
        noise_image(tmp_path / image)
        (tmp_path / text).write_text(f"of {text}", encoding="utf-8")
    (tmp_path / "alone.txt").write_text("no image", encoding="utf-8")
    splits, log = _read(tmp_path)
    assert len(_all(splits)) == 5
    assert log.unusable == []
    assert log.notes[:1] == ["1 .txt files have no image of their name: they are not read"]


def test_links_without_a_target_are_missing_images(tmp_path: Path) -> None:
    noise_image(tmp_path / "x" / "a.png")
    (tmp_path / "x" / "b.png").symlink_to(tmp_path / "x" / "gone.png")
    (tmp_path / "linked").symlink_to(tmp_path / "x")
    corpus = load_corpus(card(reader="folder", max_unusable=0.9), str(tmp_path))
    assert [(item.location, item.reason) for item in corpus.unusable] == [("file 2", "missing file")]
    assert "1 links to folders, pipes and devices are not read" in corpus.notes


@pytest.mark.parametrize("reader", ["folder", "dicom"])
def test_names_that_are_not_utf_8_are_counted(tmp_path: Path, reader: str) -> None:
    """As archives from Windows are unpacked; no table can hold such a name, and json, the list and a terminal neither."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    for number, file in enumerate(
        (tmp_path / "a.dcm", tmp_path / os.fsdecode(b"b\xe9.dcm"), folder / "c.dcm")
    ):
        dicom_file(tmp_path / "made", np.full((4, 4), number, np.uint16)).rename(_parent_of(file))
        file.with_suffix(".txt").write_text("a red square", encoding="utf-8")
    corpus = load_corpus(card(reader=reader, max_unusable=0.9), str(tmp_path))
    assert [row["id"] for row in _all(corpus.splits)] == ["a.dcm"]
    reason = "a file name that is not UTF-8: rename the file or its folder"
    assert [item.reason for item in corpus.unusable] == [reason, reason]
    with pytest.raises(DataError, match=r"2 of 3 items are unusable .*list: "):
        load_corpus(card(reader=reader), str(tmp_path))


def _parent_of(file: Path) -> Path:
    file.parent.mkdir(exist_ok=True)
    return file
