"""Keywords of FITS headers as captions, labels, groups and meta, in every reader."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value

from domainclip.data.cards import Card
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.data.schema import SPLITS
from domainclip.errors import DataError, RecipeError

fits = pytest.importorskip("astropy.io.fits", reason="needs the astro extra")

COLUMNS: dict[str, Any] = {
    "labels": "header.OBJTYPE",
    "group": "header.OBJECT",
    "meta": ["header.FILTER", "header.EXPTIME"],
}
TEMPLATE = {"template": "{header.OBJECT}, a {label} through {header.FILTER}"}


def _field(path: Path, number: int, **keywords: Any) -> Path:
    primary, image = fits.PrimaryHDU(), fits.ImageHDU(np.arange(64.0).reshape(8, 8) + number, name="SCI")
    primary.header["OBJECT"] = f"NGC {number // 2}"
    primary.header["OBJTYPE"] = ("galaxy", "nebula")[number % 2]
    primary.header["EXPTIME"] = 30.5
    image.header["FILTER"] = "r"
    for keyword, value in keywords.items():
        primary.header[keyword] = value
    fits.HDUList([primary, image]).writeto(path)
    return path


def _card(reader: str, columns: dict[str, Any], captions: dict[str, Any] = TEMPLATE, **keys: Any) -> Card:
    return Card.model_validate(
        {
            "reader": reader,
            "columns": columns,
            "captions": captions,
            "splits": {"train": 1, "validation": 0, "test": 0},
            "privacy": {"identifiers": "none"},
            **keys,
        }
    )


def _items(corpus: Corpus) -> list[dict[str, Any]]:
    return [row for split in SPLITS for row in corpus.splits[split].remove_columns(["image", "views"])]


def _check_items(corpus: Corpus) -> None:
    items = _items(corpus)
    assert [item["texts"] for item in items] == [
        [f"NGC {n // 2}, a {('galaxy', 'nebula')[n % 2]} through r"] for n in range(4)
    ]
    assert [item["labels"] for item in items] == [["galaxy"], ["nebula"], ["galaxy"], ["nebula"]]
    assert [item["group"] for item in items] == ["NGC 0", "NGC 0", "NGC 1", "NGC 1"]
    assert json.loads(items[0]["meta"]) == {"header.FILTER": "r", "header.EXPTIME": "30.5"}


def test_a_folder(tmp_path: Path) -> None:
    for number in range(4):
        _field(tmp_path / f"{number}.fits", number)
    _check_items(load_corpus(_card("folder", COLUMNS), str(tmp_path)))


def test_a_table(tmp_path: Path) -> None:
    for number in range(4):
        _field(tmp_path / f"{number}.fits", number)
    rows = "".join(f"{number}.fits\n" for number in range(4))
    (tmp_path / "metadata.csv").write_text("file_name\n" + rows)
    _check_items(load_corpus(_card("table", COLUMNS), str(tmp_path)))


def test_tar_shards(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "0.tar", "w") as tar:
        for number in range(4):
            tar.add(_field(tmp_path / f"{number}.fits", number), f"{number}.fits")
            text = tmp_path / f"{number}.txt"
            text.write_text("a field")
            tar.add(text, f"{number}.txt")
    _check_items(load_corpus(_card("webdataset", COLUMNS), str(tmp_path / "shards")))


def test_a_saved_data_set_with_bytes(tmp_path: Path) -> None:
    images = [{"path": None, "bytes": _field(tmp_path / f"{n}.fits", n).read_bytes()} for n in range(4)]
    features = Features({"image": Image(decode=False), "key": Value("string")})
    rows = Dataset.from_dict({"image": images, "key": list("abcd")}, features=features)
    rows.save_to_disk(str(tmp_path / "saved"))
    _check_items(load_corpus(_card("hub", {**COLUMNS, "id": "key"}), str(tmp_path / "saved")))


def test_captions_without_a_template(tmp_path: Path) -> None:
    for number in range(2):
        _field(tmp_path / f"{number}.fits", number)
    card = _card("folder", {"texts": ["header.object", "header.FILTER"]}, {})
    assert [item["texts"] for item in _items(load_corpus(card, str(tmp_path)))] == [["NGC 0", "r"]] * 2
    card = _card("folder", {"labels": "header.OBJTYPE"}, {})  # the label becomes the caption
    assert [item["texts"] for item in _items(load_corpus(card, str(tmp_path)))] == [["galaxy"], ["nebula"]]


def test_the_header_of_the_hdu_that_is_shown_comes_first(tmp_path: Path) -> None:
    planes = [fits.ImageHDU(np.eye(8) * n, name=name) for n, name in ((1, "G"), (2, "R"))]
    for plane in planes:
        plane.header["FILTER"] = f"filter {plane.name}"
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(tmp_path / "a.fits")
    columns = {"texts": ["header.FILTER"]}
    assert _items(load_corpus(_card("folder", columns, {}), str(tmp_path)))[0]["texts"] == ["filter G"]
    card = _card("folder", columns, {}, images={"fits": {"hdu": ["SCI", "R"]}})
    assert _items(load_corpus(card, str(tmp_path)))[0]["texts"] == ["filter R"]


def test_values_that_are_missing_are_counted_and_never_quoted(tmp_path: Path) -> None:
    _field(tmp_path / "0.fits", 0, OBSERVER="Doe, Jane")
    _field(tmp_path / "1.fits", 1)
    card = _card("folder", {"texts": ["header.OBSERVER"]}, {}, max_unusable=0.5)
    corpus = load_corpus(card, str(tmp_path))
    assert "header.OBSERVER is missing in 1 of 2 images" in corpus.notes
    assert [item.reason for item in corpus.unusable] == ["empty caption"]
    assert "Doe" not in " ".join(corpus.notes)


def test_a_keyword_that_no_file_has(tmp_path: Path) -> None:
    _field(tmp_path / "0.fits", 0)
    with pytest.raises(DataError) as caught:
        load_corpus(_card("folder", {"texts": ["header.OBJEKT"]}, {}), str(tmp_path))
    assert str(caught.value) == (
        'column "header.OBJEKT": no FITS file has the keyword OBJEKT: did you mean "OBJECT"?'
    )


def test_images_that_are_no_fits(tmp_path: Path) -> None:
    from PIL import Image as PillowImage

    PillowImage.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="none of the images is a FITS file"):
        load_corpus(_card("folder", {"texts": ["header.OBJECT"]}, {}), str(tmp_path))
    with pytest.raises(RecipeError, match="a folder has no columns"):
        load_corpus(_card("folder", {"texts": ["OBJECT"]}, {}), str(tmp_path))


def test_comments_and_broken_cards(tmp_path: Path) -> None:
    image = fits.PrimaryHDU(np.eye(8))
    image.header["COMMENT"] = "a spiral galaxy"
    image.header["COMMENT"] = "seen from above"
    image.header["NOTHING"] = None
    image.writeto(tmp_path / "a.fits")
    (tmp_path / "b.fits").write_bytes((tmp_path / "a.fits").read_bytes()[:100])
    card = _card("folder", {"texts": ["header.COMMENT"]}, {}, max_unusable=0.5)
    assert _items(load_corpus(card, str(tmp_path)))[0]["texts"] == ["a spiral galaxy seen from above"]
