"""Sides of the body, classes, pictures and their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from domainclip.data.checks import Finding, check
from domainclip.data.checks.sides import named
from domainclip.data.checks.structure import prevalence
from domainclip.data.corpus import load_corpus
from domainclip.recipe import Train
from tests.data.copies import film
from tests.data.made import card, dicom_file, table

SAYS = {
    "en": "Opacity in the left lower lobe.|The right lung is clear.|a man on the right|right-sided effusion",
    "de": "Verschattung links basal|der rechte Lappen",
    "fr": "opacité du poumon droit|épanchement à gauche",
    "es": "pulmón derecho|lóbulo izquierdo|a la derecha",
    "it": "polmone sinistro|lobo destro",
    "pt": "pulmão direito|lobo esquerdo",
    "pl": "płuco lewe|po prawej stronie",
    "cs": "levá plíce|stín vpravo",
    "nl": "de linkerlong|rechts basaal",
    "ru": "слева внизу|правая сторона",
    "zh": "左肺下叶|右侧胸腔积液",
    "ja": "左肺|右下",
    "ko": "왼쪽 폐",
    "ar": "في الرئة اليسرى|على اليمين",
    "hi": "बाएं फेफड़े में|दायां",
}
SILENT = {
    "en": "The right diagnosis.|He left the hospital.|All right.|bilateral opacities|a bright lung|copyright",
    "de": "Das Recht der Frau|beidseits|der Linkage",
    "fr": "le droit de vote|tout droit|des opacités bilatérales",
    "es": "el derecho penal",
    "pt": "o direito penal",
    "pl": "prawo|prawie",
    "cs": "právo|lev",
    "nl": "de rechter zegt",
    "zh": "三十岁左右",
    "ar": "صورة الصدر",
    "hi": "छाती का एक्स-रे",
}


@pytest.mark.parametrize("language", SAYS)
def test_words_for_a_side(language: str) -> None:
    for text in SAYS[language].split("|"):
        assert named(text, language), text
        assert named(text), text  # an unknown language is searched for the words of all
        assert named(text.upper(), f"{language}-XX"), text


@pytest.mark.parametrize("language", SILENT)
def test_words_that_only_look_like_it(language: str) -> None:
    for text in SILENT[language].split("|"):
        assert not named(text, language), text


def _found(
    folder: Path, rows: list[dict[str, Any]], check_keys: dict[str, Any], **keys: Any
) -> list[Finding]:
    return check(load_corpus(card(**keys), str(table(folder, rows))), None, 4, **check_keys)


def _rows(*texts: str) -> list[dict[str, Any]]:
    return [
        {"file_name": f"{i}.png", "text": text, "split": ["train", "test"][i % 2]}
        for i, text in enumerate(texts)
    ]


def test_a_mirror_and_words_for_sides(tmp_path: Path) -> None:
    rows = _rows("left lung", "left", "a heart", "right", "on the right")
    line = (
        "train.augmentation=crop_flip mirrors pictures, and 2 of 3 training captions say left or right; first: "
        "row 1, row 5; take train.augmentation=crop"
    )
    flip = {"augmentation": Train(augmentation="crop_flip").augmentation}
    for identifiers, level in (("none", "warning"), ("de-identified", "error"), ("unknown", "error")):
        keys = {"privacy": {"identifiers": identifiers}}
        (finding,) = [f for f in _found(tmp_path, rows, flip, **keys) if f.code == "laterality"]
        assert (finding.level, finding.text, finding.count) == (level, line, 2)
        assert not [
            f for f in _found(tmp_path, rows, {"augmentation": "crop"}, **keys) if f.code == "laterality"
        ]
    silent = _rows("a lung", "left", "a heart")
    assert not [f for f in _found(tmp_path, silent, flip) if f.code == "laterality"]


def test_classes_that_a_split_lacks_or_that_fill_it(tmp_path: Path) -> None:
    rows = [
        {"file_name": f"{i}.png", "text": "t", "label": label, "split": split}
        for i, (label, split) in enumerate(
            [("cat", "train")] * 38 + [("dog", "train"), ("emu", "train")] + [("cat", "test")] * 20
        )
    ]
    classes = {name: f"a {name}" for name in ("cat", "dog", "emu")}
    loaded = load_corpus(card(classes=classes), str(table(tmp_path, rows)))
    assert prevalence(loaded)["cat"] == {"train": 38, "validation": 0, "test": 20}
    found = check(loaded, None, 4)
    assert [finding.text for finding in found if finding.code in ("missing_class", "common_class")] == [
        'class "cat" holds for 95% of the 40 labelled items of train: read macro accuracy, not accuracy',
        '2 of 3 classes have no item in test: "dog", "emu"',
        'class "cat" holds for 100% of the 20 labelled items of test: read macro accuracy, not accuracy',
    ]


def test_pictures_that_the_base_sees_enlarged(tmp_path: Path) -> None:
    file = table(tmp_path, _rows("a", "b", "c", "d"), pictures=False)
    for i, side in enumerate((80, 100, 224, 300)):
        film(i, side).save(tmp_path / f"{i}.png")
    found = check(load_corpus(card(), str(file)), None, 4, side=224)
    texts = {finding.code: finding for finding in found}
    assert texts["small_pictures"].level == "warning"
    assert texts["small_pictures"].text == (
        "2 of 4 pictures are enlarged to 224 pixels, 2 of them more than twice"
    )
    assert texts["picture_sizes"].text == (
        "short sides of 80 to 300 pixels, half of them at most 162; stored as 4 RGB"
    )


def test_turned_pictures_and_modes_are_counted(tmp_path: Path) -> None:
    file = table(tmp_path, _rows("a", "b", "c"), pictures=False)
    exif = Image.Exif()
    exif[0x0112] = 3
    film(0).save(tmp_path / "0.png", exif=exif)
    film(1).convert("L").save(tmp_path / "1.png")
    film(2).save(tmp_path / "2.png")
    (finding,) = [f for f in check(load_corpus(card(), str(file)), None, 4) if f.code == "picture_sizes"]
    assert finding.text.endswith("stored as 2 RGB, 1 L; 1 turned upright by EXIF")


def test_what_dicom_files_say_of_burned_in_text(tmp_path: Path) -> None:
    rows = [{**row, "file_name": f"{i}.dcm"} for i, row in enumerate(_rows("a", "b", "c"))]
    file = table(tmp_path, rows, pictures=False)
    for i, said in enumerate(("YES", "NO", None)):
        stored = np.random.default_rng(i).integers(0, 4096, (16, 16)).astype(np.uint16)
        dicom_file(tmp_path / f"{i}.dcm", stored, **({"BurnedInAnnotation": said} if said else {}))
    for card_says, level, end in (
        ("no", "warning", "; look at them, and say yes or unknown in the card"),
        ("unknown", "info", ""),
    ):
        keys = {"privacy": {"identifiers": "none", "burned_in_text": card_says}}
        found = check(load_corpus(card(**keys), str(file)), None, 4)
        (finding,) = [f for f in found if f.code == "burned_in_text"]
        assert (finding.level, finding.text) == (
            level,
            f"burned-in text: the card says {card_says}; BurnedInAnnotation: 1 YES, 1 NO, 1 absent{end}",
        )
