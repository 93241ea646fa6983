"""Cards of public corpora, each on a miniature of the layout that it documents, made by its own script."""

from __future__ import annotations

import csv
import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from PIL import Image

from domainclip.data.batching.pairs import Pairs
from domainclip.data.cards import load_card
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.errors import DataError
from tests.data.made_corpora import encoded, noise_image

CARDS = Path(__file__).parents[2] / "data_cards"
DOMAINS = {
    "medical": ("roco_v2", "nih_chest_xray14", "iu_xray", "mimic_cxr_jpg", "lc25000_lung", "lc25000_colon"),
    "astronomy": ("esa_hubble", "galaxy10_decals", "capdels"),
    "art": ("wikiart", "semart"),
    "multilingual": ("multi30k", "xm3600"),
}
PUBLIC = [name for names in DOMAINS.values() for name in names]


def _rows(file: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w", encoding=options.pop("encoding", "utf-8"), newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), **options)
        writer.writeheader()
        writer.writerows(rows)
    return file


def _hub(folder: Path, features: dict[str, Any], **splits: list[dict[str, Any]]) -> Path:
    made = {}
    for number, (name, rows) in enumerate(splits.items()):
        for row, values in enumerate(rows):
            shown = Image.new("RGB", (8, 8), (20 * row, 90 * number, 7))
            values["image"] = {"path": None, "bytes": encoded(shown)}
        kinds = Features({"image": datasets.Image(), **features})
        made[name] = Dataset.from_list(rows, features=kinds)
    DatasetDict(made).save_to_disk(folder)
    return folder


TEXT = Value("string")


def _roco(folder: Path) -> Path:
    rows = [
        {"image_id": f"ROCOv2_{k}", "caption": f"CT of case {k}. Arrow: mass.", "cui": ["C1"]}
        for k in range(6)
    ]
    features = {"image_id": TEXT, "caption": TEXT, "cui": List(TEXT)}
    return _hub(folder, features, train=rows[:4], validation=rows[4:5], test=rows[5:])


def _nih(folder: Path) -> Path:
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    lines = [head]
    for k in range(60):
        said = ("No Finding", "Cardiomegaly|Emphysema", "Pleural_Thickening")[k % 3]
        noise_image(folder / "images" / f"{k:08d}_000.png", k)
        lines.append(f"{k:08d}_000.png,{said},0,{k},58,M,PA,2682,2749,0.143,0.143,")
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines))
    return folder / "Data_Entry_2017_v2020.csv"


def _iu(folder: Path) -> Path:
    said = {"MeSH": "normal", "Problems": "normal", "image": "x", "indication": "pain", "comparison": "none"}
    _rows(folder / "indiana_reports.csv", [
        {"uid": k, **said, "findings": f"Heart {k}. Lungs clear." if k else "", "impression": "Normal."} for k in range(20)
    ])  # fmt: skip
    views = [
        {"uid": k, "filename": f"{k}_{view}.dcm.png", "projection": view}
        for k in range(20)
        for view in ("Frontal", "Lateral")
    ]
    _rows(folder / "indiana_projections.csv", views)
    for number, row in enumerate(views):
        noise_image(folder / "images" / "images_normalized" / str(row["filename"]), number)
    return folder


def _mimic(folder: Path) -> Path:
    names = [*load_card("mimic_cxr_jpg").columns.labels, "No Finding"]
    tables: dict[str, list[dict[str, Any]]] = {"split": [], "chexpert": [], "metadata": []}
    for k, split in enumerate(("train", "train", "validate", "test")):
        keys = {"subject_id": 10000000 + k, "study_id": 50000000 + k}
        tables["split"].append(
            {
                "dicom_id": f"d{k}",
                "study_id": keys["study_id"],
                "subject_id": keys["subject_id"],
                "split": split,
            }
        )
        tables["chexpert"].append(
            {**keys, **dict.fromkeys(names, ""), "Edema": "1.0", "Pneumonia": "-1.0", "Fracture": "0.0"}
        )
        tables["metadata"].append({"dicom_id": f"d{k}", "ViewPosition": "PA", "Rows": 3})
        study = folder / "files" / "p10" / f"p{keys['subject_id']}" / f"s{keys['study_id']}"
        noise_image(study / f"d{k}.jpg", k)
        study.with_suffix(".txt").write_text(
            f"                 FINAL REPORT\n HISTORY:  ___F with cough.\n\n FINDINGS: \n \n Heart {k} is big.\n\n IMPRESSION: \n \n Edema."
        )
    for name, rows in tables.items():
        plain = _rows(folder / f"{name}.csv", rows)
        (folder / f"mimic-cxr-2.0.0-{name}.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    return folder


def _lc25000(folder: Path) -> Path:
    for number, name in enumerate(load_card(folder.name).classes):
        for k in range(4):
            noise_image(folder / name / f"{name.replace('_', '')}{k}.jpeg", 10 * number + k)
    return folder


def _hubble(folder: Path) -> Path:
    names = (
        "text",
        "id",
        "title",
        "description",
        "credits",
        "url",
        "Id",
        "Type",
        "Name",
        "Distance",
        "Category",
    )
    rows: list[dict[str, Any]] = [
        {
            **dict.fromkeys(names, ""),
            "id": f"heic{k}",
            "title": f"Galaxy {k}",
            "description": "Two arms. A core.",
            "Category": "Galaxies",
            "Name": f"NGC {k}",
            "Type": "Observation",
        }
        for k in range(40)
    ]
    return _hub(folder, dict.fromkeys(names, TEXT), train=rows)


def _galaxy10(folder: Path) -> Path:
    rows = [{"label": k % 10} for k in range(20)]
    return _hub(folder, {"label": Value("uint8")}, train=rows[:10], test=rows[10:])


def _capdels(folder: Path) -> Path:
    rows = [{"image_id": f"g{k}", "captions": ["A smooth galaxy.", f"Round {k}."]} for k in range(6)]
    features = {"image_id": TEXT, "captions": List(TEXT)}
    return _hub(folder, features, train=rows[:4], validation=rows[4:5], test=rows[5:])


def _wikiart(folder: Path) -> Path:
    features = {
        "artist": ClassLabel(names=["Unknown Artist", "claude-monet"]),
        "genre": ClassLabel(names=["landscape", "portrait"]),
        "style": ClassLabel(names=["Impressionism", "Cubism"]),
    }
    return _hub(folder, features, train=[{"artist": k % 2, "genre": 0, "style": k % 2} for k in range(60)])


def _semart(folder: Path) -> Path:
    columns = ("DESCRIPTION", "AUTHOR", "TITLE", "TECHNIQUE", "DATE", "TYPE", "SCHOOL", "TIMEFRAME")
    for number, split in enumerate(("train", "val", "test")):
        said = {
            "IMAGE_FILE": f"{number}.jpg",
            **dict.fromkeys(columns, "x"),
            "DESCRIPTION": "The sitter’s hand, “the left”, rests. Behind her is a river.",
            "AUTHOR": "DÜRER, Albrecht",
            "TITLE": "Madonna",
            "TYPE": "portrait",
        }
        _rows(folder / f"semart_{split}.csv", [said], encoding="cp1252", delimiter="\t")
        noise_image(folder / "Images" / f"{number}.jpg", number)
    return folder


def _multi30k(folder: Path) -> Path:
    rows = [
        {"en": f"a dog {k}", "cs": f"pes {k}", "de": f"ein Hund {k}", "fr": f"un chien {k}"} for k in range(6)
    ]
    return _hub(
        folder,
        dict.fromkeys(("en", "cs", "de", "fr"), TEXT),
        train=rows[:4],
        validation=rows[4:5],
        test=rows[5:],
    )


def _xm3600(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "captions.jsonl", "w", encoding="utf-8") as stream:
        for k in range(3):
            said = {
                lang: {"caption": [f"{lang} {k}", f"{lang} more {k}"], "caption/tokenized": ["x"]}
                for lang in ("en", "hi")
            }
            stream.write(json.dumps({"image/key": f"00{k}", "image/locale": "en", **said}) + "\n")
            noise_image(folder / "images" / f"00{k}.jpg", k)
    return folder


MAKE: dict[str, Callable[[Path], Path]] = {
    "roco_v2": _roco, "nih_chest_xray14": _nih, "iu_xray": _iu, "mimic_cxr_jpg": _mimic, "esa_hubble": _hubble,
    "galaxy10_decals": _galaxy10, "capdels": _capdels, "wikiart": _wikiart, "semart": _semart,
    "multi30k": _multi30k, "xm3600": _xm3600, "lc25000_lung": _lc25000, "lc25000_colon": _lc25000,
}  # fmt: skip


def _loaded(name: str, folder: Path, **keys: Any) -> Corpus:
    path = MAKE[name](folder / name)
    for script in re.findall(r"```python\n(.*?)```", load_card(name).description, re.DOTALL):
        # What a card tells the reader to run is run as it stands.
        subprocess.run(
            [sys.executable, "-I", "-c", script], cwd=path if path.is_dir() else path.parent, check=True
        )
    return load_corpus(load_card(name, {"min_items": 1, **keys}), str(path), secret=b"test")


def _shown(corpus: Corpus) -> set[str]:
    """All that training may show of the first item."""
    return set(
        Pairs(corpus.splits["train"], lambda p: {}, pixels=False, captions=corpus.card.captions)
        .caption_pools[0]
        .texts
    )


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_card_says_how_to_get_it_and_what_was_not_verified(name: str) -> None:
    card = load_card(name)
    assert card.pretty_name
    assert card.obtain
    assert card.consent != "unknown"
    assert card.verified
    assert card.not_verified
    assert card.privacy.identifiers in ("none", "de-identified")
    assert "**Limits.**" in card.description


def test_every_domain_has_two_and_every_card_of_the_folder_is_covered() -> None:
    assert all(len(names) >= 2 for names in DOMAINS.values())
    assert set(MAKE) == set(PUBLIC)
    verified = {file.stem for file in CARDS.glob("*.md") if load_card(file.stem).verified}
    assert verified == set(PUBLIC)


@pytest.mark.parametrize(
    ("name", "sizes", "shown"),
    [
        ("roco_v2", (4, 1, 1), {"CT of case 0.", "Arrow: mass."}),
        ("capdels", (4, 1, 1), {"A smooth galaxy.", "Round 0."}),
        ("galaxy10_decals", (10, 0, 10), {"a disturbed galaxy", "an image of a disturbed galaxy from a sky survey"}),
        ("multi30k", (4, 1, 1), {"a dog 0", "pes 0", "ein Hund 0", "un chien 0"}),
        ("mimic_cxr_jpg", (2, 1, 1), {"Heart 0 is big.", "Edema."}),
        ("semart", (1, 1, 1), {"Madonna by DÜRER, Albrecht.", "The sitter’s hand, “the left”, rests.", "Behind her is a river."}),
    ],
)  # fmt: skip
def test_what_a_card_makes_of_its_layout(
    name: str, sizes: tuple[int, ...], shown: set[str], tmp_path: Path
) -> None:
    corpus = _loaded(name, tmp_path)
    assert tuple(map(len, corpus.splits.values())) == sizes
    assert corpus.unusable == []
    assert _shown(corpus) == shown


def test_nih_is_trained_on_templates_and_measured_by_pairs_of_prompts(tmp_path: Path) -> None:
    corpus = _loaded("nih_chest_xray14", tmp_path)
    assert sum(map(len, corpus.splits.values())) == 60
    train = corpus.splits["train"]
    labels = train["labels"][:]
    assert {tuple(own) for own in labels} == {
        ("No Finding",),
        ("Cardiomegaly", "Emphysema"),
        ("Pleural_Thickening",),
    }
    assert {tuple(own) for own in train["texts"][:]} == {()}
    both = labels.index(["Cardiomegaly", "Emphysema"])
    pairs = Pairs(train, lambda p: {}, pixels=False, captions=corpus.card.captions)
    assert "chest x-ray showing Cardiomegaly" in pairs.caption_pools[both].texts
    assert len(pairs.caption_pools[both].texts) == 6
    assert len(corpus.classes) == 14
    assert json.loads(train["meta"][0]) == {"View Position": "PA", "Patient Age": "58"}


@pytest.mark.parametrize(("name", "count"), [("lc25000_lung", 3), ("lc25000_colon", 2)])
def test_lc25000_has_the_prompts_of_its_folders(name: str, count: int, tmp_path: Path) -> None:
    corpus = _loaded(name, tmp_path)
    labels = {label for rows in corpus.splits.values() for row in rows["labels"][:] for label in row}
    assert labels == set(corpus.classes)
    assert {len(prompts.positive) for prompts in corpus.classes.values()} == {3}
    assert len(labels) == count
    assert corpus.unusable == []


def test_iu_x_ray(tmp_path: Path) -> None:
    corpus = _loaded("iu_xray", tmp_path)
    assert sum(map(len, corpus.splits.values())) == 40
    said = {tuple(own) for rows in corpus.splits.values() for own in rows["texts"][:]}
    assert ("Heart 1. Lungs clear.", "Normal.") in said
    assert ("Normal.",) in said  # of a study without findings
    assert (
        _loaded("iu_xray", tmp_path / "b", options={"where": {"projection": "Frontal"}})
        .notes[-1]
        .startswith("20 of 40 rows")
    )


def test_mimic_labels_that_are_not_sure(tmp_path: Path) -> None:
    train = _loaded("mimic_cxr_jpg", tmp_path).splits["train"]
    assert train["labels"][:] == [["Edema"]] * 2
    assert json.loads(train["meta"][0]) == {"ViewPosition": "PA", "unknown_labels": ["Pneumonia"]}


def test_esa_hubble(tmp_path: Path) -> None:
    corpus = _loaded("esa_hubble", tmp_path)
    assert sum(map(len, corpus.splits.values())) == 40
    first = corpus.splits["train"]["texts"][0][0]
    assert re.fullmatch(r"Galaxy \d+\. Two arms\. A core\.", first)
    assert _shown(corpus) == {first.split(" Two")[0], "Two arms.", "A core."}
    assert list(corpus.classes) == ["Galaxies"]


def test_wikiart(tmp_path: Path) -> None:
    corpus = _loaded("wikiart", tmp_path)
    assert sum(map(len, corpus.splits.values())) == 60
    assert set(corpus.classes) == {"Cubism", "Impressionism"}
    assert _shown(corpus) in (
        {
            "a Impressionism landscape by Unknown Artist",
            "a Impressionism painting",
            "art of the style Impressionism",
        },
        {"a Cubism landscape by claude-monet", "a Cubism painting", "art of the style Cubism"},
    )


def test_crossmodal_3600_is_for_measuring(tmp_path: Path) -> None:
    corpus = _loaded("xm3600", tmp_path)
    assert tuple(map(len, corpus.splits.values())) == (0, 0, 3)
    test = corpus.splits["test"]
    assert test["texts"][0] == ["en 0", "en more 0", "hi 0", "hi more 0"]
    assert test["language"][0] == ["en", "en", "hi", "hi"]


@pytest.mark.parametrize("name", ["roco_v2", "iu_xray", "semart"])
def test_a_wrong_column_says_which_columns_exist(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _loaded(name, tmp_path, columns={"meta": ["pictur"]})
    there = {
        "roco_v2": f'{tmp_path / name}: no column "pictur" (corpus.columns.meta): known: caption, cui, image, image_id.',
        "iu_xray": 'metadata.csv: no column "pictur" (corpus.columns.meta): known: filename, findings, impression, projection, uid.',
        "semart": 'metadata.csv: no column "pictur" (corpus.columns.meta): known: AUTHOR, DATE, DESCRIPTION, IMAGE_FILE, SCHOOL, TECHNIQUE, TIMEFRAME, TITLE, TYPE, split.',
    }  # fmt: skip
    assert str(caught.value) == there[name]
