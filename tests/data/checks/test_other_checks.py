"""Checks of laterality, truncation, classes, image sizes and DICOM files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from domainclip.config.training import TrainConfig
from domainclip.data.checks.captions import training_texts
from domainclip.data.checks.findings import Finding
from domainclip.data.checks.images import burned_in_text, dicom_files, missing_decoders
from domainclip.data.checks.laterality import names_side
from domainclip.data.checks.run_checks import corpus_findings
from domainclip.data.checks.structure import class_counts
from domainclip.data.corpus import load_corpus
from tests.data.image_copies import film
from tests.data.made_corpora import card, dicom_file, table
from tests.data.made_shards import png, tar

SIDED = {
    "en": "Opacity in the left lower lobe.|The right lung is clear.|a man on the right|right-sided effusion|"
    "Right pneumothorax.|Right PICC tip in the SVC|right basilar opacity|Small right effusion|right sixth rib|"
    "RUL nodule|LLL collapse|opacity in RML",
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
UNSIDED = {
    "en": "The right diagnosis.|He left the hospital.|All right.|bilateral opacities|a bright lung|copyright|"
    "right away|It is right.|the right to know|LOL",
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


@pytest.mark.parametrize("language", SIDED)
def test_words_for_a_side(language: str) -> None:
    for text in SIDED[language].split("|"):
        assert names_side(text, language), text
        assert names_side(text), text  # of an unknown language: the words of all are searched
        assert names_side(text.upper(), f"{language}-XX"), text


@pytest.mark.parametrize("language", UNSIDED)
def test_words_that_name_no_side(language: str) -> None:
    for text in UNSIDED[language].split("|"):
        assert not names_side(text, language), text


def _findings(
    folder: Path, rows: list[dict[str, Any]], check_keys: dict[str, Any], **keys: Any
) -> list[Finding]:
    return corpus_findings(load_corpus(card(**keys), str(table(folder, rows))), None, 4, **check_keys)


def _rows(*texts: str) -> list[dict[str, Any]]:
    return [
        {"file_name": f"{i}.png", "text": text, "split": ["train", "test"][i % 2]}
        for i, text in enumerate(texts)
    ]


def test_mirroring_and_words_for_sides(tmp_path: Path) -> None:
    rows = _rows("left lung", "left", "a heart", "right", "on the right")
    line = (
        "train.augmentation=crop_flip mirrors images, but 2 of 3 training captions name left or right; first: "
        "row 1, row 5; use train.augmentation=crop"
    )
    flip = {"augmentation": TrainConfig(augmentation="crop_flip").augmentation}
    for identifiers, level in (("none", "warning"), ("de-identified", "error"), ("unknown", "error")):
        keys = {"privacy": {"identifiers": identifiers}}
        (finding,) = [f for f in _findings(tmp_path, rows, flip, **keys) if f.code == "laterality"]
        assert (finding.level, finding.text, finding.count) == (level, line, 2)
        assert not [
            f for f in _findings(tmp_path, rows, {"augmentation": "crop"}, **keys) if f.code == "laterality"
        ]
    silent = _rows("a lung", "left", "a heart")
    assert not [f for f in _findings(tmp_path, silent, flip) if f.code == "laterality"]


def test_words_for_sides_in_templates_labels_and_rewrites(tmp_path: Path) -> None:
    rows = [
        {"file_name": "0.png", "text": "a heart", "other": "fluid, left", "label": "cat", "split": "train"},
        {"file_name": "1.png", "text": "a lung", "other": "air", "label": "left lung", "split": "train"},
    ]
    flip = {"augmentation": "crop_flip"}
    captions = {"rewrites": ["other"], "templates": ["film, {}", "{}, as seen from the right"]}
    findings = _findings(tmp_path, rows, flip, language=["en"], captions=captions)
    assert [(f.level, f.text) for f in findings if f.code == "laterality"] == [
        (
            "warning",
            # Two texts, two rewrites, and two captions of each label.
            "train.augmentation=crop_flip mirrors images, but 4 of 8 training captions name left or right; "
            "first: row 1, row 2; use train.augmentation=crop",
        )
    ]
    # A caption that is never drawn is not counted: the second one under the policy first.
    rows = [{"file_name": "0.png", "text": "a heart", "other": "left", "split": "train"}]
    keys = {"columns": {"texts": ["text", "other"]}, "captions": {"policy": "first"}}
    assert not [f for f in _findings(tmp_path, rows, flip, **keys) if f.code == "laterality"]


def test_training_texts_have_the_language_of_their_caption(tmp_path: Path) -> None:
    rows = [{"file_name": "0.png", "en": "One. The lev is Bulgarian.", "cs": "Lev spí.", "split": "train"}]
    columns = {"texts": ["en", "cs"], "languages": {"en": "en", "cs": "cs"}}
    keys = {"columns": columns, "captions": {"policy": "sentence"}}
    assert [text for _, *text in training_texts(load_corpus(card(**keys), str(table(tmp_path, rows))))] == [
        ["One.", "en"],
        ["The lev is Bulgarian.", "en"],
        ["Lev spí.", "cs"],
    ]


def test_truncation_is_measured_on_the_texts_that_training_draws(tmp_path: Path) -> None:
    long = "One two three. Four five six. Seven."
    rows = [
        {"file_name": "0.png", "text": "a b", "other": long, "label": "a very long name", "split": "train"}
    ]
    file, texts = str(table(tmp_path, rows)), {"columns": {"texts": ["text", "other"]}}

    def cut(**captions: Any) -> str:
        loaded = load_corpus(card(captions=captions, **texts), file)
        findings = corpus_findings(
            loaded, lambda texts: [len(text.split()) for text in texts], 4, max_tokens=3
        )
        return next(finding.text for finding in findings if finding.code == "truncated_captions")

    end = "of the distinct training captions are truncated to 3 tokens; 95 % have at most"
    assert cut() == f"50.0% {end} 7"
    assert cut(overlong="window") == f"0.0% {end} 3"
    assert cut(policy="first") == f"0.0% {end} 2"
    assert cut(templates=["film, {}"]) == f"66.7% {end} 7"
    assert cut(policy="first", rewrites=["other"]) == f"50.0% {end} 7"


def test_classes_missing_in_a_split_or_of_nearly_all_its_items(tmp_path: Path) -> None:
    rows = [
        {"file_name": f"{i}.png", "text": "t", "label": label, "split": split}
        for i, (label, split) in enumerate(
            [("cat", "train")] * 38 + [("dog", "train"), ("emu", "train")] + [("cat", "test")] * 20
        )
    ]
    classes = {name: f"a {name}" for name in ("cat", "dog", "emu")}
    loaded = load_corpus(card(classes=classes), str(table(tmp_path, rows)))
    assert class_counts(loaded)["cat"] == {"train": 38, "validation": 0, "test": 20}
    findings = corpus_findings(loaded, None, 4)
    assert [finding.text for finding in findings if finding.code in ("missing_class", "common_class")] == [
        'class "cat" holds for 95% of the 40 labelled items of train: read macro accuracy, not accuracy',
        '2 of 3 classes have no item in test: "dog", "emu"',
        'class "cat" holds for 100% of the 20 labelled items of test: read macro accuracy, not accuracy',
    ]


def test_images_that_are_enlarged_for_the_base(tmp_path: Path) -> None:
    file = table(tmp_path, _rows("a", "b", "c", "d"), images=False)
    for i, side in enumerate((80, 100, 224, 300)):
        film(i, side).save(tmp_path / f"{i}.png")
    findings = corpus_findings(load_corpus(card(), str(file)), None, 4, side=224)
    texts = {finding.code: finding for finding in findings}
    assert texts["small_images"].level == "warning"
    assert texts["small_images"].text == (
        "2 of 4 images are enlarged to 224 pixels, 2 of them more than twice"
    )
    assert texts["image_sizes"].text == (
        "short sides of 80 to 300 pixels, half of them at most 162; stored as 4 RGB"
    )


def test_rotated_images_and_modes_are_counted(tmp_path: Path) -> None:
    file = table(tmp_path, _rows("a", "b", "c"), images=False)
    exif = Image.Exif()
    exif[0x0112] = 3
    film(0).save(tmp_path / "0.png", exif=exif)
    film(1).convert("L").save(tmp_path / "1.png")
    film(2).save(tmp_path / "2.png")
    (finding,) = [
        f for f in corpus_findings(load_corpus(card(), str(file)), None, 4) if f.code == "image_sizes"
    ]
    assert finding.text.endswith("stored as 2 RGB, 1 L; 1 rotated upright by EXIF")


def test_burned_in_text_in_the_card_and_in_dicom_files(tmp_path: Path) -> None:
    rows = [{**row, "file_name": f"{i}.dcm"} for i, row in enumerate(_rows("a", "b", "c"))]
    file = table(tmp_path, rows, images=False)
    for i, annotation in enumerate(("YES", "NO", None)):
        stored = np.random.default_rng(i).integers(0, 4096, (16, 16)).astype(np.uint16)
        dicom_file(
            tmp_path / f"{i}.dcm", stored, **({"BurnedInAnnotation": annotation} if annotation else {})
        )
    for declared, level, end in (
        ("no", "warning", "; inspect them, and set privacy.burned_in_text to yes or unknown in the card"),
        ("unknown", "info", ""),
    ):
        keys = {"privacy": {"identifiers": "none", "burned_in_text": declared}}
        findings = corpus_findings(load_corpus(card(**keys), str(file)), None, 4)
        (finding,) = [f for f in findings if f.code == "burned_in_text"]
        assert (finding.level, finding.text) == (
            level,
            f"burned-in text: {declared} according to the card; BurnedInAnnotation: 1 YES, 1 NO, 1 absent{end}",
        )


def _annotated_yes(path: Path) -> Path:
    stored = np.random.default_rng(1).integers(0, 4096, (16, 16)).astype(np.uint16)
    return dicom_file(path, stored, BurnedInAnnotation="YES")


def test_dicom_files_are_found_in_tars_and_among_many_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _annotated_yes(tmp_path / "0.dcm").read_bytes()
    members = [("0.dcm", data), ("0.txt", b"a"), ("1.png", png(3)), ("1.txt", b"b")]
    whole = {"splits": {"train": 1, "validation": 0, "test": 0}}
    in_tar = card(reader="webdataset", columns={"texts": ["text"]}, **whole)
    rows = [{"file_name": f"{i}.png", "text": f"{i}", "split": "train"} for i in range(20)]
    rows.append({"file_name": "z.dcm", "text": "z", "split": "train"})
    behind = table(tmp_path / "behind", rows[:-1])
    table(tmp_path / "behind", rows, images=False)
    _annotated_yes(tmp_path / "behind" / "z.dcm")
    monkeypatch.setattr("domainclip.data.dicom.decoders.find_plugin", lambda syntax, bits=8: "")
    loaded = [
        load_corpus(in_tar, str(tar(tmp_path / "a" / "000.tar", members))),
        load_corpus(card(), str(behind)),
    ]
    for corpus in loaded:
        files = sorted(dicom_files(corpus))
        assert [finding.text for finding in burned_in_text(corpus, files)] == [
            "burned-in text: unknown according to the card; BurnedInAnnotation: 1 YES"
        ]
        assert [finding.text for finding in missing_decoders(files)] == [
            "no decoder for Explicit VR Little Endian: 1 files; no permissive decoder reads it: convert these "
            "files, for example to JPEG 2000"
        ]


def test_captions_that_may_identify_a_person_are_counted_by_kind(tmp_path: Path) -> None:
    rows = _rows("Mr. Planted, DOB 1.2.1950", "normal", "seen 3.4.2020 by Dr. Planted", "a heart")
    persons = {"privacy": {"identifiers": "unknown"}}
    (finding,) = [f for f in _findings(tmp_path, rows, {}, **persons) if f.code == "identifiers"]
    assert (finding.level, finding.count, finding.where) == ("warning", 2, ("row 1", "row 3"))
    assert finding.text.startswith(
        "2 items have captions that may identify a person (name in 2 captions, date in 1, date of birth in 1, of 4 "
        "searched); first: row 1, row 3; "
    )
    assert "Planted" not in finding.text
    assert not [f for f in _findings(tmp_path, rows, {}) if f.code == "identifiers"]  # a card without persons
