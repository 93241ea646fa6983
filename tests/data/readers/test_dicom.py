from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from datasets import DatasetDict
from pydicom.data import get_testdata_file
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGLossless

from domainclip.data.corpus import load_corpus
from domainclip.data.images.decode import decode_image
from domainclip.data.quarantine import ReadLog, UnusableItem
from domainclip.data.readers.dicom import Dicom
from domainclip.errors import DataError, RecipeError, UnreadableImage
from tests.data.made_corpora import card, dicom_file, table
from tests.data.made_dicom import by_gdcm, container, report_file, text_item

STORED = np.arange(64, dtype=np.uint16).reshape(8, 8)
TRAIN_ONLY = {"splits": {"train": 1, "validation": 0, "test": 0}}


def _read(path: Path, keys: dict[str, Any] | None = None, **options: Any) -> tuple[DatasetDict, ReadLog]:
    log = ReadLog()
    return Dicom(**options).read(card(**{**TRAIN_ONLY, **(keys or {})}), path, log), log


def _studies(folder: Path) -> None:
    for i, patient in enumerate(["Smith", "Smith", "Jones"]):
        dicom_file(
            folder / f"study{i}" / "IM0001",
            STORED + i,
            PatientID=patient,
            PatientName=f"{patient}^Canary",
            PatientSex="F",
            AccessionNumber=f"A{i}",
            ViewPosition="PA",
        )


def test_files_are_known_by_their_content_and_reports_stand_beside(tmp_path: Path) -> None:
    _studies(tmp_path)
    for i in range(3):
        (tmp_path / f"study{i}" / "IM0001.txt").write_text(f"Report {i}.\n\nNo  effusion.", encoding="utf-8")
    (tmp_path / "readme.dcm").write_text("no DICOM file, whatever its name says", encoding="utf-8")
    splits, log = _read(tmp_path, {"columns": {"meta": ["PatientSex", "ViewPosition"]}})
    rows = [dict(row) for row in splits["train"]]
    assert [row["texts"] for row in rows] == [[f"Report {i}. No effusion."] for i in range(3)]
    assert [row["group"] for row in rows] == ["Smith", "Smith", "Jones"]
    assert json.loads(rows[0]["meta"]) == {"PatientSex": "F", "ViewPosition": "PA"}
    assert decode_image(rows[0]["image"]).size == (8, 8)
    assert log.guessed == {"texts": "text", "group": "PatientID"}
    # Nobody asked for names, so none came through the door.
    assert "Canary" not in json.dumps(rows)


def test_a_table_that_names_the_files(tmp_path: Path) -> None:
    _studies(tmp_path)
    rows = [
        {
            "file_name": f"study{i}/IM0001",
            "findings": f"Finding {i}.",
            "impression": "",
            "label": "mass",
            "patient": i,
        }
        for i in range(3)
    ]
    table(tmp_path, rows, "reports.csv", images=False)
    keys = {
        "columns": {"image": "file_name", "texts": ["findings"], "group": "patient", "meta": ["PatientSex"]},
        "captions": {"template": "{findings} {impression}"},
    }
    for path in (tmp_path, tmp_path / "reports.csv"):
        splits, log = _read(path, keys)
        assert splits["train"]["texts"][:] == [["Finding 0."], ["Finding 1."], ["Finding 2."]]
        assert splits["train"]["group"][:] == ["0", "1", "2"]
        assert splits["train"]["meta"][0] == '{"PatientSex": "F"}'
        assert list(log.locations.values()) == ["row 1", "row 2", "row 3"]


def test_the_table_of_reports_may_lie_outside_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    elsewhere.mkdir()
    _studies(images)
    table(elsewhere, [{"accession": "A0", "text": "clear lungs"}], "texts.csv", images=False)
    options: dict[str, Any] = {"key": "accession", "attribute": "AccessionNumber"}
    absolute, _ = _read(images, reports=str(elsewhere / "texts.csv"), **options)
    relative, _ = _read(images, reports="../elsewhere/texts.csv", **options)
    monkeypatch.chdir(elsewhere)
    typed, _ = _read(images, reports="texts.csv", **options)
    assert absolute["train"]["texts"][:] == [["clear lungs"]]
    assert absolute["train"].to_list() == relative["train"].to_list() == typed["train"].to_list()


def test_reports_by_an_attribute_of_the_files(tmp_path: Path) -> None:
    _studies(tmp_path)
    rows = [{"accession": f"A{i}", "text": f"Report {i}."} for i in (2, 0)]
    table(tmp_path, rows, "texts.csv", images=False)
    options: dict[str, Any] = {"reports": "texts.csv", "key": "accession", "attribute": "AccessionNumber"}
    splits, log = _read(tmp_path, **options)
    assert splits["train"]["texts"][:] == [["Report 0."], ["Report 2."]]
    assert [(bad.location, bad.reason) for bad in log.unusable] == [("file 2", "empty caption")]


def test_a_key_that_has_the_name_of_its_attribute(tmp_path: Path) -> None:
    _studies(tmp_path)
    rows = [{"AccessionNumber": f"A{i}", "text": f"Report {i}."} for i in range(3)]
    table(tmp_path, rows, "texts.csv", images=False)
    splits, _ = _read(tmp_path, reports="texts.csv", key="AccessionNumber", attribute="AccessionNumber")
    assert splits["train"]["texts"][:] == [["Report 0."], ["Report 1."], ["Report 2."]]


def test_a_file_without_the_attribute_gets_no_strangers_report(tmp_path: Path) -> None:
    _studies(tmp_path)
    dicom_file(tmp_path / "study3" / "IM0001", STORED + 3, AccessionNumber="")
    dicom_file(tmp_path / "study4" / "IM0001", STORED + 4)
    said = [("A0", "One."), ("", "A stranger's."), ("A0", "Two."), (" ", "Another's."), ("A9", "Nobody's.")]
    table(tmp_path, [{"acc": key, "text": text} for key, text in said], "texts.csv", images=False)
    splits, log = _read(tmp_path, reports="texts.csv", key="acc", attribute="AccessionNumber")
    assert splits["train"]["texts"][:] == [["One.", "Two."]]
    assert [(bad.location, bad.reason) for bad in log.unusable] == [
        (f"file {number}", "empty caption") for number in (2, 3, 4, 5)
    ]
    assert log.notes[-2:] == [
        "2 of 5 rows have an empty acc: they are not used",
        "1 of 5 rows match no image: they are not used",
    ]


def test_rows_of_one_key_meet_and_say_where_they_differ(tmp_path: Path) -> None:
    _studies(tmp_path)
    rows = [
        {"acc": "A0", "text": "One.", "label": "mass", "site": "x"},
        {"acc": "A0", "text": "Two.", "label": "effusion", "site": "y"},
        {"acc": "A1", "text": "Three.", "label": "mass", "site": "x"},
    ]
    table(tmp_path, rows, "texts.csv", images=False)
    options: dict[str, Any] = {"reports": "texts.csv", "key": "acc", "attribute": "AccessionNumber"}
    splits, log = _read(tmp_path, {"columns": {"meta": ["site"]}}, **options)
    held = [(row["texts"], row["labels"], json.loads(row["meta"])) for row in splits["train"]]
    assert held == [
        (["One.", "Two."], ["mass", "effusion"], {"site": "x"}),
        (["Three."], ["mass"], {"site": "x"}),
    ]
    assert "rows of one key differ in site: the first value is used" in log.notes


@pytest.mark.parametrize("broken", [False, True])
def test_a_bare_name_of_several_files_is_nobodys_key(tmp_path: Path, broken: bool) -> None:
    _studies(tmp_path)
    if broken:  # the report may well be that of the file that cannot be read
        for i in range(2):
            data = (tmp_path / f"study{i}" / "IM0001").read_bytes()
            (tmp_path / f"study{i}" / "IM0001").write_bytes(data[:200])
    rows = [{"file": "study2/IM0001", "text": "Third."}, {"file": "IM0001", "text": "Whose?"}]
    table(tmp_path, rows, "texts.csv", images=False)
    with pytest.raises(DataError) as caught:
        _read(tmp_path, reports="texts.csv", key="file")
    assert str(caught.value) == (
        'texts.csv: row 2: its key is the name of 2 files: write their paths in column "file", as in '
        "FOLDER/NAME.dcm"
    )
    # A file that lies in the corpus folder itself has its name for a path.
    dicom_file(tmp_path / "IM0001", STORED + 9, PatientID="Brown")
    splits, _ = _read(tmp_path, reports="texts.csv", key="file")
    assert {row["id"]: row["texts"] for row in splits["train"]} == {
        "IM0001": ["Whose?"],
        "study2/IM0001": ["Third."],
    }


def test_reports_by_the_name_of_the_file(tmp_path: Path) -> None:
    _studies(tmp_path)
    table(tmp_path, [{"study": "study1/IM0001", "text": "Report."}], "texts.csv", images=False)
    splits, _ = _read(tmp_path, reports="texts.csv", key="study")
    assert splits["train"]["texts"][:] == [["Report."]]


def test_other_objects_of_a_study_are_left_out_and_counted(tmp_path: Path) -> None:
    _studies(tmp_path)
    (tmp_path / "study0" / "IM0001.txt").write_text("Report.", encoding="utf-8")
    for name in ("rtplan.dcm", "test-SR.dcm", "reportsi.dcm", "dicomdirtests/DICOMDIR"):
        shutil.copy(str(get_testdata_file(name, download=False)), tmp_path / Path(name).name)
    _, log = _read(tmp_path)
    assert "DICOM files that are not images are left out: 1 (DICOMDIR), 1 (RTPLAN), 2 (SR)" in log.notes
    assert {bad.reason for bad in log.unusable} == {"empty caption"}


def test_a_table_that_names_what_is_no_image(tmp_path: Path) -> None:
    shutil.copy(str(get_testdata_file("rtplan.dcm", download=False)), tmp_path / "plan.dcm")
    table(tmp_path, [{"file_name": "plan.dcm", "text": "A plan."}], images=False)
    _, log = _read(tmp_path)
    assert log.unusable == [
        UnusableItem("row 1", "not an image (RTPLAN)", str((tmp_path / "plan.dcm").resolve()))
    ]
    with pytest.raises(DataError) as caught:
        load_corpus(card(reader="dicom"), str(tmp_path))
    assert str(caught.value) == (
        "corpus test: 1 of 1 items are unusable (100.0%, limit 1.0%): 1 not an image (RTPLAN); first: row 1 "
        f"plan.dcm (not an image (RTPLAN)); repair them, or check corpus.path, corpus.columns and corpus.options: no item is usable (list: "
        f"{Path.home()}/.cache/domainclip/unusable-test.tsv)"
    )


def test_no_identifier_leaves_a_corpus_whose_privacy_is_unknown(tmp_path: Path) -> None:
    root = tmp_path / "PACS"
    for i in range(12):
        file = dicom_file(
            root / "Canary_John" / f"IM{i}", STORED + i, PatientID="MRN4711", PatientName="Canary^John"
        )
        file.with_suffix(".txt").write_text("A report.", encoding="utf-8")
    the_card = card(reader="dicom", privacy={"identifiers": "unknown"}, **TRAIN_ONLY)
    corpus = load_corpus(the_card, str(root), secret=b"key")
    visible = [{name: row[name] for name in row if name != "image"} for row in corpus.splits["train"]]
    said = json.dumps([visible, corpus.notes, corpus.locations, list(map(str, corpus.classes))])
    assert "Canary" not in said
    assert "4711" not in said
    assert len({row["group"] for row in visible}) == 1
    assert len({row["id"] for row in visible}) == 12
    # The same machine gives the same names, another machine other ones.
    assert (
        load_corpus(the_card, str(root), b"key").splits["train"]["id"][:] == corpus.splits["train"]["id"][:]
    )
    assert (
        load_corpus(the_card, str(root), b"other").splits["train"]["id"][:] != corpus.splits["train"]["id"][:]
    )
    assert load_corpus(the_card, str(root), b"other").fingerprint == corpus.fingerprint


def test_messages_name_rows_and_no_files_when_privacy_is_unknown(tmp_path: Path) -> None:
    table(tmp_path, [{"file_name": "Canary_John.dcm", "text": "A report."}], images=False)
    with pytest.raises(DataError) as caught:
        load_corpus(card(reader="dicom", privacy={"identifiers": "unknown"}), str(tmp_path))
    listed = Path.home() / ".cache" / "domainclip" / "unusable-test.tsv"
    assert str(caught.value) == (
        "corpus test: 1 of 1 items are unusable (100.0%, limit 1.0%): 1 missing file; first: row 1 (missing "
        f"file); repair them, or check corpus.path, corpus.columns and corpus.options: no item is usable (list: {listed})"
    )
    assert listed.read_text(encoding="utf-8").splitlines()[1].endswith("Canary_John.dcm")
    assert listed.stat().st_mode & 0o077 == 0


def test_wrong_options(tmp_path: Path) -> None:
    _studies(tmp_path)
    table(tmp_path, [{"accession": "A0", "text": "x"}], "texts.csv", images=False)
    with pytest.raises(DataError) as caught:
        _read(tmp_path, reports="texts.csv", key="acession")
    assert str(caught.value) == (
        'texts.csv: no column "acession" (corpus.options.key): did you mean "accession"?'
    )
    with pytest.raises(RecipeError) as recipe:
        _read(tmp_path, reports="texts.csv", key="accession", attribute="AcessionNumber")
    assert str(recipe.value) == (
        'corpus.options.attribute: no DICOM keyword "AcessionNumber": did you mean "AccessionNumber"?'
    )
    with pytest.raises(DataError) as caught:
        _read(tmp_path, reports="../texts.csv")
    assert str(caught.value) == f"{tmp_path}/../texts.csv: no such file: check corpus.options.reports"
    with pytest.raises(DataError) as caught:
        _read(tmp_path / "none.csv")
    assert str(caught.value) == f"{tmp_path / 'none.csv'}: no such file: check corpus.path"


@pytest.mark.parametrize("name", ["a.dcm", "a.dcm#frame=0"])
def test_links_of_a_table_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    dicom_file(tmp_path / "secret.dcm", STORED)
    root = tmp_path / "corpus"
    root.mkdir()
    (root / "a.dcm").symlink_to(tmp_path / "secret.dcm")
    table(root, [{"file_name": name, "text": "x"}], images=False)
    with pytest.raises(DataError) as caught:
        _read(root)
    assert str(caught.value) == (
        f"metadata.csv: row 1, column file_name: the file lies outside the corpus folder {root}: move or copy it inside"
    )


def test_links_that_lead_outside_are_refused(tmp_path: Path) -> None:
    dicom_file(tmp_path / "secret.dcm", STORED)
    root = tmp_path / "corpus"
    root.mkdir()
    (root / "a.dcm").symlink_to(tmp_path / "secret.dcm")
    with pytest.raises(DataError) as caught:
        _read(root)
    assert str(caught.value) == (
        f"file 1: the file lies outside the corpus folder {root}: move or copy it inside"
    )


def test_a_broken_file_is_counted(tmp_path: Path) -> None:
    _studies(tmp_path)
    data = (tmp_path / "study0" / "IM0001").read_bytes()
    for size in (200, 500):
        (tmp_path / "study0" / "IM0001").write_bytes(data[:size])
        _, log = _read(tmp_path)
        assert ("file 1", "no pixel data") in [(bad.location, bad.reason) for bad in log.unusable]


def _pictures(row: dict[str, Any]) -> list[str]:
    """The names of an item's images, the place inside each included."""
    return [Path(image["path"]).name for image in (row["image"], *row["views"])]


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        ("first", ["film.dcm"]),
        ("middle", ["film.dcm#frame=1"]),
        ("key", ["film.dcm#frame=2"]),
        ("all", ["film.dcm", "film.dcm#frame=1", "film.dcm#frame=2", "film.dcm#frame=3"]),
    ],
)
def test_frames_of_a_film(tmp_path: Path, policy: str, shown: list[str]) -> None:
    stored = np.stack([np.full((8, 8), 10 * k, np.uint8) for k in range(4)])
    keys = {"Rows": 8, "Columns": 8, "NumberOfFrames": 4, "RepresentativeFrameNumber": 3}
    dicom_file(tmp_path / "film.dcm", stored, **keys)
    (tmp_path / "film.txt").write_text("Report.", encoding="utf-8")
    corpus = load_corpus(card(reader="dicom", options={"frames": policy}, **TRAIN_ONLY), str(tmp_path))
    (row,) = corpus.splits["train"]
    assert _pictures(row) == shown
    greys = [int(np.asarray(decode_image(image))[0, 0, 0]) for image in (row["image"], *row["views"])]
    assert greys == {"first": [0], "middle": [10], "key": [20], "all": [0, 10, 20, 30]}[policy]
    assert len(corpus.view_digests.get(row["id"], [])) == len(shown) - 1


def test_a_hundred_thousand_frames_in_a_small_file(tmp_path: Path) -> None:
    _studies(tmp_path)
    for i in range(3):
        (tmp_path / f"study{i}" / "IM0001.txt").write_text("Report.", encoding="utf-8")
    dicom_file(tmp_path / "study1" / "IM0001", STORED, NumberOfFrames=100_000)
    splits, log = _read(tmp_path, frames="all")
    assert [len(views) for views in splits["train"]["views"]] == [0, 0, 0]  # each file has one frame
    assert log.unusable == []


def _study_of_views(folder: Path) -> None:
    """Two studies: a chest with a lateral and a frontal view, and a series of three slices and another."""
    views = {"lateral": ("LL", 1), "frontal": ("PA", 2)}
    for k, (name, (view, number)) in enumerate(views.items()):
        dicom_file( folder / f"chest/{name}.dcm", STORED + k, StudyInstanceUID="1.1", SeriesInstanceUID=f"1.1.{k}", ViewPosition=view, InstanceNumber=number, PatientID="Smith", )  # fmt: skip
    (folder / "chest/lateral.txt").write_text("Lateral: clear.", encoding="utf-8")
    (folder / "chest/frontal.txt").write_text("Frontal: clear.", encoding="utf-8")
    for k, (name, number) in enumerate({"a": 10, "b": 9, "c": 2, "d": 1}.items()):
        dicom_file( folder / f"slices/{name}.dcm", STORED + 9 + k, StudyInstanceUID="1.2", InstanceNumber=number, SeriesInstanceUID="1.2.2" if name == "d" else "1.2.1", SeriesNumber=2 if name == "d" else 1, PatientID="Jones", )  # fmt: skip
        (folder / f"slices/{name}.txt").write_text("Slices.", encoding="utf-8")


def test_files_of_one_study_are_views_of_one_item(tmp_path: Path) -> None:
    _study_of_views(tmp_path)
    splits, log = _read(tmp_path, study="study")
    rows = [dict(row) for row in splits["train"]]
    # The frontal view first; slices by the numbers of their series and of their place in it.
    assert [_pictures(row) for row in rows] == [
        ["frontal.dcm", "lateral.dcm"],
        ["c.dcm", "b.dcm", "a.dcm", "d.dcm"],
    ]
    assert [row["texts"] for row in rows] == [["Frontal: clear.", "Lateral: clear."], ["Slices."]]
    assert [row["group"] for row in rows] == ["Smith", "Jones"]
    assert [row["id"] for row in rows] == ["chest/frontal.dcm", "slices/c.dcm"]
    assert log.unusable == []


def test_files_of_one_series_are_views_of_one_item(tmp_path: Path) -> None:
    _study_of_views(tmp_path)
    splits, _ = _read(tmp_path, study="series")
    assert sorted(map(_pictures, splits["train"])) == [
        ["c.dcm", "b.dcm", "a.dcm"],
        ["d.dcm"],
        ["frontal.dcm"],
        ["lateral.dcm"],
    ]


def test_rows_of_a_table_that_name_files_of_one_study(tmp_path: Path) -> None:
    _study_of_views(tmp_path)
    rows = [
        {"file_name": f"{name}.dcm", "text": text, "label": label}
        for name, text, label in [
            ("chest/lateral", "Clear.", "normal"),
            ("slices/b", "A mass.", "mass"),
            ("chest/frontal", "Clear.", "normal"),
            ("slices/a", "In the left lobe.", "mass"),
        ]
    ]
    table(tmp_path, rows, "reports.csv", images=False)
    splits, _ = _read(tmp_path, study="study")
    held = [(_pictures(row), row["texts"], row["labels"]) for row in splits["train"]]
    assert held == [
        (["frontal.dcm", "lateral.dcm"], ["Clear."], ["normal"]),
        (["b.dcm", "a.dcm"], ["A mass.", "In the left lobe."], ["mass"]),
    ]


def test_what_orders_a_study_never_leaves_the_reader(tmp_path: Path) -> None:
    """Fault 34: UIDs, numbers and views are used here and go nowhere."""
    _study_of_views(tmp_path)
    splits, log = _read(tmp_path, {"columns": {"group": ""}}, study="study")
    rows = [{name: row[name] for name in row if name not in ("image", "views")} for row in splits["train"]]
    said = json.dumps([rows, log.notes])
    assert not [word for word in ("1.1", "1.2", "PA", "LL", "Smith", "Jones") if f'"{word}' in said]


@pytest.mark.parametrize("window", ["soft_tissue", "LUNG", 1])
def test_the_window_is_part_of_the_path(tmp_path: Path, window: str | int) -> None:
    keys = {"RescaleSlope": 1, "RescaleIntercept": 0, "Modality": "CT"}
    two = {"WindowCenter": [0, 20], "WindowWidth": [11, 41], "WindowCenterWidthExplanation": ["A", "LUNG"]}
    dicom_file(tmp_path / "a.dcm", STORED, **keys, **two)
    (tmp_path / "a.txt").write_text("Report.", encoding="utf-8")
    splits, log = _read(tmp_path, window=window)
    row = splits["train"][0]
    assert _pictures(row) == [f"a.dcm#window={window}"]
    assert int(np.asarray(decode_image(row["image"])).max()) == {"soft_tissue": 143}.get(str(window), 255)
    assert not [note for note in log.notes if "window" in note]


def test_windows_that_files_do_not_have(tmp_path: Path) -> None:
    for i in range(3):
        two = {"WindowCenterWidthExplanation": "LUNG"} if i else {}
        dicom_file(tmp_path / f"{i}.dcm", STORED + i, WindowCenter=9, WindowWidth=9, **two)
    _, log = _read(tmp_path, window="lung")
    assert "1 of 3 files have no window lung (corpus.options.window): their first one is used" in log.notes
    with pytest.raises(RecipeError) as caught:
        _read(tmp_path, window="soft_tisue")
    assert str(caught.value) == (
        'corpus.options.window: none of 3 files has window soft_tisue: did you mean "soft_tissue"?'
    )
    with pytest.raises(RecipeError) as caught:
        _read(tmp_path, window=2)
    assert str(caught.value) == "corpus.options.window: none of 3 files has window 2, counted from 0"


def test_structured_reports_of_the_same_study_are_the_text(tmp_path: Path) -> None:
    _studies(tmp_path)
    studies = [pydicom.dcmread(tmp_path / f"study{i}" / "IM0001").StudyInstanceUID for i in range(3)]
    (tmp_path / "study2" / "IM0001.txt").write_text("Own text.", encoding="utf-8")
    for i, study in enumerate([*studies[:1], studies[2], "9.9"]):
        found = container("Findings", text_item("Finding", f"Finding {i}."))
        report_file(tmp_path / f"r{i}.dcm", study, found, container("Impression", text_item("I", "Normal.")))
    splits, log = _read(tmp_path)
    assert splits["train"]["texts"][:] == [["Findings: Finding 0. Impression: Normal."], ["Own text."]]
    assert "2 structured reports (SR) are the text of the images of their studies" in log.notes
    assert "DICOM files that are not images are left out: 1 (SR)" in log.notes
    assert [(bad.location, bad.reason) for bad in log.unusable] == [("file 5", "empty caption")]
    # Its headings are names that the policy for sections can cut by.
    splits, _ = _read(tmp_path, {"captions": {"policy": "section", "sections": ["impression"]}})
    assert splits["train"]["texts"][0] == ["Normal."]


def test_too_many_files_without_a_decoder_stop_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _studies(tmp_path)
    for i in range(3):
        (tmp_path / f"study{i}" / "IM0001.txt").write_text("Report.", encoding="utf-8")
    lossless = by_gdcm(tmp_path / "x.dcm", tmp_path / "study1" / "IM0001", "JPEGLosslessProcess14")
    lossless.rename(tmp_path / "study1" / "IM0001")
    _, log = _read(tmp_path)
    assert not [note for note in log.notes if "decoded" in note]
    monkeypatch.setattr(get_decoder(JPEGLossless), "_available", {})
    monkeypatch.setattr("domainclip.data.dicom.decoders._is_installed", lambda package: False)
    said = (
        "1 of 3 DICOM files cannot be decoded here: 1 JPEG Lossless, Non-Hierarchical (Process 14): "
        "pip install python-gdcm"
    )
    with pytest.raises(DataError) as caught:
        _read(tmp_path)
    assert str(caught.value) == f"corpus test: {said}"
    _, log = _read(tmp_path, {"max_unusable": 0.5})
    assert said in log.notes


def test_a_name_without_the_content_is_counted(tmp_path: Path) -> None:
    """Fault 28: no preamble."""
    _studies(tmp_path)
    (tmp_path / "a.dcm").write_bytes(b"old format")
    _, log = _read(tmp_path)
    assert ("file 1", "no DICOM preamble") in [(bad.location, bad.reason) for bad in log.unusable]


def test_everything_that_is_no_image_is_left_out_with_reason_and_count(tmp_path: Path) -> None:
    """Fault 28: none of it stops the corpus, and each is counted by its reason."""
    for i in range(97):
        dicom_file(tmp_path / f"ok/{i}.dcm", STORED + i)
        (tmp_path / f"ok/{i}.txt").write_text(f"Report {i}.", encoding="utf-8")
    for name in ("no_meta.dcm", "rtplan.dcm", "test-SR.dcm", "dicomdirtests/DICOMDIR", "UN_sequence.dcm"):
        shutil.copy(str(get_testdata_file(name, download=False)), tmp_path / Path(name).name)
    corpus = load_corpus(card(reader="dicom", max_unusable=0.05, **TRAIN_ONLY), str(tmp_path))
    assert len(corpus.splits["train"]) == 97
    assert "DICOM files that are not images are left out: 1 (DICOMDIR), 1 (RTPLAN), 1 (SR)" in corpus.notes
    assert sorted(bad.reason for bad in corpus.unusable) == ["no DICOM preamble", "no pixel data"]


def test_a_row_that_names_a_frame_shows_that_one(tmp_path: Path) -> None:
    stored = np.stack([np.full((8, 8), 10 * k, np.uint8) for k in range(4)])
    keys = {"Rows": 8, "Columns": 8, "NumberOfFrames": 4, "PatientID": "Smith"}
    dicom_file(tmp_path / "film.dcm", stored, **keys)
    rows = [{"file_name": "film.dcm#frame=3", "text": "End."}, {"file_name": "film.dcm", "text": "Whole."}]
    table(tmp_path, rows, images=False)
    splits, _ = _read(tmp_path, frames="middle")
    assert list(map(_pictures, splits["train"])) == [["film.dcm#frame=3"], ["film.dcm#frame=1"]]
    assert set(splits["train"]["group"]) == {"Smith"}


def test_a_report_that_is_cut_off_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _studies(tmp_path)

    def broken(path: Path) -> tuple[str, str]:
        raise UnreadableImage(str(path), "broken DICOM report (ValueError)")

    monkeypatch.setattr("domainclip.data.readers.sources.dicom_structured_reports.read_report_text", broken)
    report_file(tmp_path / "r.dcm", "1.2", text_item("Finding", "x"))
    _, log = _read(tmp_path)
    assert ("file 1", "broken DICOM report (ValueError)") in [
        (bad.location, bad.reason) for bad in log.unusable
    ]


def test_a_number_of_frames_that_is_none_is_not_used(tmp_path: Path) -> None:
    """Fault 28: badVR, whose number of frames is "1A"."""
    shutil.copy(str(get_testdata_file("badVR.dcm", download=False)), tmp_path / "a.dcm")
    (tmp_path / "a.txt").write_text("Report.", encoding="utf-8")
    splits, _ = _read(tmp_path, frames="all", study="study", window=0)
    assert np.asarray(decode_image(splits["train"][0]["image"])).std() > 10


def test_other_objects_are_counted_beside_a_keyed_table_too(tmp_path: Path) -> None:
    _studies(tmp_path)
    shutil.copy(str(get_testdata_file("rtplan.dcm", download=False)), tmp_path / "plan.dcm")
    table(tmp_path, [{"accession": "A0", "text": "Report."}], "texts.csv", images=False)
    _, log = _read(tmp_path, reports="texts.csv", key="accession", attribute="AccessionNumber")
    assert "DICOM files that are not images are left out: 1 (RTPLAN)" in log.notes


def test_damaged_files_without_a_suffix_are_counted(tmp_path: Path) -> None:
    """An empty file and one with a broken beginning; texts and other known files are noted, not counted."""
    _studies(tmp_path)
    for i in range(3):
        (tmp_path / f"study{i}" / "IM0001.txt").write_text("Report.", encoding="utf-8")
    whole = (tmp_path / "study1" / "IM0001").read_bytes()
    damaged = {
        "IM0002": b"",
        "IM0003": b"\x01" + whole[1:128] + b"XXXX" + whole[132:],
        "1.2.840.5": b"\0" * 99,
    }
    for name, content in damaged.items():
        (tmp_path / "study1" / name).write_bytes(content)
    (tmp_path / "study1" / "bare").write_bytes(whole[132:])  # only the preamble is missing
    (tmp_path / "study1" / "bare.txt").write_text("Bare.", encoding="utf-8")
    (tmp_path / "README").write_text("A text.", encoding="utf-8")
    (tmp_path / "logo").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (tmp_path / "logo.png").write_bytes(b"")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    splits, log = _read(tmp_path, {"max_unusable": 1.0})
    assert len(splits["train"]) == 4
    assert sorted(bad.reason for bad in log.unusable) == [
        "empty file",
        "missing file",
        "no DICOM preamble",
        "no DICOM preamble",
    ]
    assert (
        "files that are not DICOM files are left out: 1 .png, 1 PNG without a known suffix, "
        "1 text without a known suffix" in log.notes
    )


def test_an_image_that_a_dicomdir_lists_is_counted_if_it_is_missing(tmp_path: Path) -> None:
    source = Path(str(get_testdata_file("dicomdirtests/DICOMDIR", download=False)))
    shutil.copy(source, tmp_path / "DICOMDIR")
    dataset = pydicom.dcmread(source)
    images = [r for r in dataset.DirectoryRecordSequence if r.DirectoryRecordType == "IMAGE"]
    first = tmp_path.joinpath(*images[0].ReferencedFileID)
    dicom_file(first, STORED)
    first.with_name(f"{first.name}.txt").write_text("Report.", encoding="utf-8")
    for path in (tmp_path, tmp_path / "DICOMDIR"):
        log = ReadLog()
        Dicom().read(card(reader="dicom", max_unusable=1.0, **TRAIN_ONLY), path, log)
        missing = [bad for bad in log.unusable if bad.reason == "missing file"]
        assert 0 < len(missing) < len(images)
        assert all(bad.location.startswith("DICOMDIR record ") for bad in missing)
        absent = len(images) - 1 - len(missing)
        assert (
            f"{absent} images that a DICOMDIR lists are not in the folder, nor others of their studies"
            in log.notes
        )


def test_a_table_of_reports_that_is_missing_is_named_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    with pytest.raises(DataError) as caught:
        load_corpus(
            card(reader="dicom", options={"reports": "none.csv", "key": "a"}), str(tmp_path / "scans")
        )
    assert (
        str(caught.value) == f"{tmp_path / 'scans' / 'none.csv'}: no such file: check corpus.options.reports"
    )


def test_a_file_is_named_by_its_row_of_the_table_of_reports(tmp_path: Path) -> None:
    for name in "abc":
        shutil.copy(pydicom.data.get_testdata_file("CT_small.dcm"), tmp_path / f"{name}.dcm")
    (tmp_path / "reports.csv").write_text("file,text\nc,third\nb,second\na,first\n")
    loaded = load_corpus(card(reader="dicom", options={"key": "file"}), str(tmp_path))
    assert sorted(loaded.locations.values()) == ["row 1 (file 3)", "row 2 (file 2)", "row 3 (file 1)"]
