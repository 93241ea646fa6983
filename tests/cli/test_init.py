"""`init` on sources of every kind: its files are valid, read the corpus as expected, and show no cell."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from domainclip.cli.app import main
from domainclip.config import loading
from domainclip.data.cards import Card, load_card
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.errors import DataError, RecipeError
from domainclip.pipelines.init.init import Initialised, InitRequest, init
from tests.conftest import make_corpus
from tests.data.made_corpora import dicom_file, encoded, noise_image, table
from tests.data.made_shards import tar

Said = tuple[int, str, str]


def run(capsys: pytest.CaptureFixture[str], *words: object) -> Said:
    code = 0
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    told = capsys.readouterr()
    return code, told.out, told.err


def corpus_of(folder: Path) -> tuple[Card, Corpus]:
    """The corpus as `finetune` reads it from the two files."""
    recipe = loading.load_recipe(str(folder / "recipe.yaml"))
    card = load_card(recipe.corpus.card, recipe.corpus.overrides())
    return card, load_corpus(card, recipe.corpus.path)


def made(path: Path, out: Path, **options: Any) -> Initialised:
    return init(InitRequest(str(path), out, **options), lambda question, choices: None, lambda text: None)


def test_a_table_with_its_images(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = run(capsys, "init", corpus, "--out", tmp_path, "--yes")
    assert (code, error) == (0, "reading the items\n")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert lines["columns.image"].split(None, 2)[1:] == ["file_name", "64 of the first 64 cells name files"]
    assert lines["columns.labels"].split(None, 2)[1:] == ["label", "4 distinct values in 64 of 64 rows"]
    assert lines["items:"] == "items: 40 train, 8 validation, 16 test; 32 groups"
    assert out.endswith(
        f"next:\n  domainclip data check -r {tmp_path}/recipe.yaml\n  domainclip finetune -r {tmp_path}/recipe.yaml\n"
    )
    assert (
        "a red square"
        not in out + (tmp_path / "card.md").read_text() + (tmp_path / "recipe.yaml").read_text()
    )
    card, read = corpus_of(tmp_path)
    assert (card.columns.texts, card.columns.group, card.columns.split) == (["text"], "group_id", "split")
    assert {name: len(rows) for name, rows in read.splits.items()} == {
        "train": 40,
        "validation": 8,
        "test": 16,
    }
    assert not read.guesses  # every column is named
    assert sorted(read.classes) == ["blue", "green", "red", "white"]


def test_examples_are_shown_on_request(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, "init", corpus, "--out", tmp_path, "--show-values")
    assert "a blue square 8" in out
    _, out, _ = run(capsys, "init", corpus, "--out", tmp_path / "json", "--json", "--show-values")
    document = json.loads(out)
    assert document["schema_version"] == 1
    assert document["items"] == {"train": 40, "validation": 8, "test": 16, "groups": 32}
    guesses = {guess["key"]: guess for guess in document["guesses"]}
    assert set(guesses["columns.labels"]["examples"]) <= {"blue", "green", "red", "white"}
    assert document["files"] == [str(tmp_path / "json/card.md"), str(tmp_path / "json/recipe.yaml")]


def test_files_are_not_overwritten_and_a_fault_leaves_none(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "card.md").write_text("mine")
    with pytest.raises(RecipeError, match=r"card.md: exists already: name another folder with --out FOLDER"):
        made(corpus, tmp_path)
    assert (tmp_path / "card.md").read_text() == "mine"
    with pytest.raises(DataError):
        made(table(tmp_path / "none", [{"price": i} for i in range(3)], images=False), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _studies(folder: Path) -> Path:
    """An archive of three patients with two studies each, and a table of reports elsewhere."""
    rows = []
    for i in range(18):
        dicom_file(
            folder / "archive" / f"patient{i // 6}" / f"IM{i:04}",
            np.arange(64, dtype=np.uint16).reshape(8, 8) + i,
            PatientID=f"MRN{i // 6}",
            PatientName=f"Canary^{i}",
            AccessionNumber=f"A{i}",
            StudyInstanceUID=f"1.2.{i // 3}",
        )
        rows.append(
            {"accession": f"A{i}", "report": f"Canary report number {i} is of the chest.", "signed": "Canary"}
        )
    (folder / "ris").mkdir()
    with (folder / "ris" / "export.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_a_dicom_archive_with_reports_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _studies(tmp_path)
    words = (
        "init",
        folder / "archive",
        "--table",
        folder / "ris/export.csv",
        "--out",
        tmp_path / "o",
        "--show-values",
    )
    code, out, error = run(capsys, *words)
    assert code == 0
    files = (tmp_path / "o/card.md").read_text() + (tmp_path / "o/recipe.yaml").read_text()
    assert "Canary" not in out + error + files
    assert "MRN" not in out + error + files
    assert "no examples are shown: cells of this corpus may identify persons" in out
    card, read = corpus_of(tmp_path / "o")
    assert (card.options["key"], card.options["attribute"]) == ("accession", "AccessionNumber")
    assert (card.options["study"], card.columns.group) == ("study", "PatientID")
    assert sum(map(len, read.splits.values())) == 6  # studies
    assert all(len(texts) == 3 for rows in read.splits.values() for texts in rows["texts"][:])
    assert read.card.privacy.identifiers == "unknown"


def test_dicom_files_without_reports(tmp_path: Path) -> None:
    for i in range(12):
        attributes = {"PatientID": f"P{i // 2}", "BodyPartExamined": ("CHEST", "HAND")[i // 2 % 2]}
        dicom_file(tmp_path / f"f{i}", np.full((8, 8), i * 9, np.uint16), **attributes)
    done = made(tmp_path, tmp_path / "o")
    assert done.draft.value("columns.labels") == "BodyPartExamined"
    _, read = corpus_of(tmp_path / "o")
    texts = {text for rows in read.splits.values() for texts in rows["texts"][:] for text in texts}
    assert texts == {"CR, CHEST", "CR, HAND"}


def _folders(root: Path) -> Path:
    for i in range(30):
        noise_image(root / ("ice_cream", "bread")[i % 2] / f"{i}.png", i)
    return root


def _pairs(root: Path) -> Path:
    for i in range(30):
        noise_image(root / f"{i}.jpg", i).with_suffix(".txt").write_text(
            f"das ist der Apfel {i} auf dem Tisch"
        )
    return root


def _shards(root: Path) -> Path:
    root.mkdir()
    members = {}
    for i in range(30):
        members |= {
            f"{i:03}.png": (noise_image(root / "x.png", i)).read_bytes(),
            f"{i:03}.txt": f"a chair {i}".encode(),
        }
        members[f"{i:03}.json"] = json.dumps({"object_id": f"o{i // 2}"}).encode()
    (root / "x.png").unlink()
    tar(root / "train-000.tar", members.items())
    return root


def _saved(root: Path) -> Path:
    rows = {
        "photo": [
            {"bytes": noise_image(root.parent / "x.png", i).read_bytes(), "path": None} for i in range(30)
        ],
        "alt_text": [f"a chair {i}" for i in range(30)],
        "kind": [i % 2 for i in range(30)],
    }
    kinds = datasets.ClassLabel(names=["oak", "pine"])
    features = {"photo": datasets.Image(), "alt_text": datasets.Value("string"), "kind": kinds}
    whole = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    datasets.DatasetDict(train=whole.select(range(20)), test=whole.select(range(20, 30))).save_to_disk(root)
    return root


def _western(root: Path) -> Path:
    for i in range(30):
        noise_image(root / "fotos" / f"{i}.png", i)
    lines = ["Datei;Beschreibung", *(f"{i}.png;der Stuhl für die Küche {i}" for i in range(30))]
    (root / "katalog.csv").write_bytes("\n".join(lines).encode("cp1252"))
    return root


def _fits(root: Path) -> Path:
    fits = pytest.importorskip("astropy.io.fits")
    root.mkdir()
    for i in range(30):
        hdu = fits.PrimaryHDU(np.random.default_rng(i).normal(size=(8, 8)).astype("f4"))
        hdu.header["OBJECT"], hdu.header["OBJTYPE"] = f"NGC {i // 2}", ("galaxy", "nebula")[i // 2 % 2]
        hdu.writeto(root / f"{i}.fits")
    return root


def _fits_table(root: Path) -> Path:
    _fits(root)
    lines = ["file_name,caption", *(f"{i}.fits,two faint sources {i}" for i in range(30))]
    (root / "frames.csv").write_text("\n".join(lines))
    return root


SOURCES: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str, str]] = {
    # maker, guesses, recipe, a caption of the first item
    "folders": (
        _folders,
        {"reader": "folder", "columns.labels": "label", "captions.template": "a photo of a {label}"},
        "class_folders",
        "a photo of a bread",
    ),
    "pairs": (_pairs, {"columns.texts": ["text"]}, "multilingual", "das ist der Apfel"),
    "shards": (
        _shards,
        {"reader": "webdataset", "columns.texts": ["text"], "columns.group": "object_id"},
        "hub_dataset",
        "a chair",
    ),
    "saved": (
        _saved,
        {"reader": "hub", "columns.image": "photo", "columns.texts": ["alt_text"], "columns.labels": "kind"},
        "hub_dataset",
        "a chair",
    ),
    "western": (
        _western,
        {"options.encoding": "cp1252", "columns.image": "Datei", "options.image_folder": "fotos"},
        "multilingual",
        "der Stuhl für die Küche",
    ),
    "fits": (
        _fits,
        {"reader": "folder", "columns.labels": "header.OBJTYPE", "columns.group": "header.OBJECT"},
        "astronomy",
        "",
    ),
    "fits table": (
        _fits_table,
        {"reader": "table", "columns.image": "file_name", "columns.texts": ["caption"]},
        "astronomy",
        "two faint sources",
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_sources_of_every_kind(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    make, guesses, recipe, caption = SOURCES[name]
    done = made(make(tmp_path / "source"), tmp_path / "o")
    assert {key: done.draft.value(key) for key in guesses if key not in ("reader", "captions.template")} == {
        key: value for key, value in guesses.items() if key not in ("reader", "captions.template")
    }
    assert {guess.key: guess.value for guess in done.guesses}.items() >= guesses.items()
    assert done.choice.recipe == recipe
    _, read = corpus_of(tmp_path / "o")
    assert done.items is not None
    assert done.items.sizes == {split: len(rows) for split, rows in read.splits.items()}
    assert done.items.total == 30
    texts = [texts[0] for rows in read.splits.values() for texts in rows["texts"][:]]
    assert any(text.startswith(caption) for text in texts)


def test_a_split_with_one_patient_in_two_parts_is_not_used(tmp_path: Path) -> None:
    rows = [
        {
            "file_name": f"{i}.png",
            "caption": f"a chair {i}",
            "patient_id": f"P{i // 2}",
            "split": ("train", "test")[i % 2],
        }
        for i in range(40)
    ]
    done = made(table(tmp_path / "c", rows), tmp_path / "o")
    card, read = corpus_of(tmp_path / "o")
    assert card.columns.split == ""
    (reason,) = [guess.reason for guess in done.guesses if guess.key == "columns.split"]
    assert reason.startswith(
        "the column split is not used: patient-level leak: 20 groups are in more than one split"
    )
    groups = [set(rows["group"][:]) for rows in read.splits.values()]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 20


def test_rows_that_cannot_be_used_are_counted_and_allowed_for(tmp_path: Path) -> None:
    rows = [{"file_name": f"{i}.png", "caption": f"a chair {i}" if i % 10 else ""} for i in range(40)]
    file = table(tmp_path / "c", rows)
    (tmp_path / "c" / "7.png").unlink()
    done = made(file, tmp_path / "o")
    assert done.items is not None
    assert done.items.in_words().endswith("; 5 cannot be used (4 empty caption, 1 missing file)")
    card, read = corpus_of(tmp_path / "o")
    assert (len(read.unusable), card.max_unusable) == (5, 0.126)
    rows = [{**row, "caption": "a chair"} for row in rows]
    assert made(table(tmp_path / "d", rows), tmp_path / "whole").items is not None
    assert corpus_of(tmp_path / "whole")[0].max_unusable == 0.01


def test_what_the_files_do_not_show_is_asked(tmp_path: Path) -> None:
    rows = [{"a": f"x{i}", "b": f"some long words {i}"} for i in range(12)]
    file = table(tmp_path, rows, images=False)
    asked: list[str] = []

    def answer(question: str, choices: Any) -> str:
        asked.append(question)
        return "a" if "image" in question else "b"

    with pytest.raises(
        DataError, match="no column names the images: add one, or, for reports of DICOM files"
    ):
        made(file, tmp_path / "o")
    for i in range(12):
        noise_image(tmp_path / f"x{i}.png", i).rename(tmp_path / f"x{i}")
    done = init(InitRequest(str(file), tmp_path / "o"), answer, lambda text: None)
    assert asked == []  # the cells name files by now, and one column has texts
    assert (done.draft.value("columns.image"), done.draft.value("columns.texts")) == ("a", ["b"])
    table(tmp_path / "n", [{"a": f"y{i}", "b": 5 * i, "c": 7 * i} for i in range(12)], images=False)
    with pytest.raises(DataError, match="no column names the images"):
        init(InitRequest(str(tmp_path / "n/metadata.csv"), tmp_path / "p"), lambda *_: "d", lambda text: None)
    init(InitRequest(str(tmp_path / "n/metadata.csv"), tmp_path / "p"), answer, lambda text: None)
    assert asked == ["Which column names the images?", "Which column holds the captions, or the classes?"]


def test_the_typed_base_decides_the_objective(corpus: Path, base: Path, tmp_path: Path) -> None:
    made(corpus, tmp_path, base=str(base))
    recipe = loading.load_recipe(str(tmp_path / "recipe.yaml"))
    assert (recipe.base.path, list(recipe.objectives)) == (str(base), ["contrastive"])
    made(corpus, tmp_path / "sig", base="google/siglip-base-patch16-224")
    assert list(loading.load_recipe(str(tmp_path / "sig/recipe.yaml")).objectives) == ["sigmoid"]


def test_a_small_corpus_has_small_batches(tmp_path: Path) -> None:
    made(make_corpus(tmp_path / "c"), tmp_path)
    text = (tmp_path / "recipe.yaml").read_text()
    train = loading.load_recipe(str(tmp_path / "recipe.yaml")).train
    assert (train.batch_size, train.epochs) == (16, 20)
    assert "batch_size 128, epochs 3 in the built-in recipe hub_dataset; 40 items: 2 steps an epoch" in text


def test_few_groups_are_divided_into_larger_shares(tmp_path: Path) -> None:
    rows = [
        {"file_name": f"{i}.png", "caption": f"a chair {i}", "object_id": f"o{i // 2}"} for i in range(60)
    ]
    done = made(table(tmp_path / "c", rows), tmp_path / "o")
    card, read = corpus_of(tmp_path / "o")
    assert (card.splits.train, card.splits.validation, card.splits.test) == (0.6, 0.2, 0.2)
    assert done.items is not None
    assert done.items.sizes == {split: len(rows) for split, rows in read.splits.items()}
    assert "few: with the usual shares" in (tmp_path / "o" / "card.md").read_text()


def test_images_in_a_parquet_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    from PIL import Image

    rows = [
        {
            "image": {"bytes": encoded(Image.new("RGB", (8, 8), (i * 8, 0, 0))), "path": None},
            "text": f"red {i}",
        }
        for i in range(20)
    ]
    pandas.DataFrame(rows).to_parquet(tmp_path / "x.parquet")
    assert made(tmp_path / "x.parquet", tmp_path).draft.value("columns.image") == "image"
    assert sum(map(len, corpus_of(tmp_path)[1].splits.values())) == 20
