from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import DatasetDict
from pydicom.data import get_testdata_file

from domainclip.corpora.dicom import Dicom
from domainclip.data.corpus import load_corpus
from domainclip.data.images import decode
from domainclip.data.quarantine import Bad, Journal
from domainclip.errors import DataError, RecipeError
from tests.data.made import card, dicom_file, table

STORED = np.arange(64, dtype=np.uint16).reshape(8, 8)
TRAIN_ONLY = {"splits": {"train": 1, "validation": 0, "test": 0}}


def _read(path: Path, keys: dict[str, Any] | None = None, **options: Any) -> tuple[DatasetDict, Journal]:
    journal = Journal()
    return Dicom(**options).read(card(**{**TRAIN_ONLY, **(keys or {})}), path, journal), journal


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
    splits, journal = _read(tmp_path, {"columns": {"meta": ["PatientSex", "ViewPosition"]}})
    rows = [dict(row) for row in splits["train"]]
    assert [row["texts"] for row in rows] == [[f"Report {i}. No effusion."] for i in range(3)]
    assert [row["group"] for row in rows] == ["Smith", "Smith", "Jones"]
    assert json.loads(rows[0]["meta"]) == {"PatientSex": "F", "ViewPosition": "PA"}
    assert decode(rows[0]["image"]).size == (8, 8)
    assert "column group: PatientID (guessed; say otherwise with corpus.columns.group)" in journal.notes
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
    table(tmp_path, rows, "reports.csv", pictures=False)
    keys = {
        "columns": {"image": "file_name", "texts": ["findings"], "group": "patient", "meta": ["PatientSex"]},
        "captions": {"template": "{findings} {impression}"},
    }
    for path in (tmp_path, tmp_path / "reports.csv"):
        splits, journal = _read(path, keys)
        assert splits["train"]["texts"][:] == [["Finding 0."], ["Finding 1."], ["Finding 2."]]
        assert splits["train"]["group"][:] == ["0", "1", "2"]
        assert splits["train"]["meta"][0] == '{"PatientSex": "F"}'
        assert list(journal.places.values()) == ["row 1", "row 2", "row 3"]


def test_reports_by_an_attribute_of_the_files(tmp_path: Path) -> None:
    _studies(tmp_path)
    rows = [{"accession": f"A{i}", "text": f"Report {i}."} for i in (2, 0)]
    table(tmp_path, rows, "texts.csv", pictures=False)
    options: dict[str, Any] = {"reports": "texts.csv", "key": "accession", "attribute": "AccessionNumber"}
    splits, journal = _read(tmp_path, **options)
    assert splits["train"]["texts"][:] == [["Report 0."], ["Report 2."]]
    assert [(bad.place, bad.reason) for bad in journal.bad] == [("file 2", "empty caption")]


def test_reports_by_the_name_of_the_file(tmp_path: Path) -> None:
    _studies(tmp_path)
    table(tmp_path, [{"study": "study1/IM0001", "text": "Report."}], "texts.csv", pictures=False)
    splits, _ = _read(tmp_path, reports="texts.csv", key="study")
    assert splits["train"]["texts"][:] == [["Report."]]


def test_other_objects_of_a_study_are_left_out_and_counted(tmp_path: Path) -> None:
    _studies(tmp_path)
    (tmp_path / "study0" / "IM0001.txt").write_text("Report.", encoding="utf-8")
    for name in ("rtplan.dcm", "test-SR.dcm", "reportsi.dcm", "dicomdirtests/DICOMDIR"):
        shutil.copy(str(get_testdata_file(name, download=False)), tmp_path / Path(name).name)
    _, journal = _read(tmp_path)
    assert "DICOM files that are not images are left out: 1 (DICOMDIR), 1 (RTPLAN), 2 (SR)" in journal.notes
    assert {bad.reason for bad in journal.bad} == {"empty caption"}


def test_a_table_that_names_what_is_no_image(tmp_path: Path) -> None:
    shutil.copy(str(get_testdata_file("rtplan.dcm", download=False)), tmp_path / "plan.dcm")
    table(tmp_path, [{"file_name": "plan.dcm", "text": "A plan."}], pictures=False)
    _, journal = _read(tmp_path)
    assert journal.bad == [Bad("row 1", "not an image (RTPLAN)", str((tmp_path / "plan.dcm").resolve()))]
    with pytest.raises(DataError) as caught:
        load_corpus(card(reader="dicom"), str(tmp_path))
    assert str(caught.value) == (
        "corpus test: 1 of 1 items are unusable (100.0%, limit 1.0%): 1 not an image (RTPLAN); first: row 1 "
        f"plan.dcm (not an image (RTPLAN)); mend them or raise corpus.max_bad (list: "
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
    said = json.dumps([visible, corpus.notes, corpus.places, list(map(str, corpus.classes))])
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
    table(tmp_path, [{"file_name": "Canary_John.dcm", "text": "A report."}], pictures=False)
    with pytest.raises(DataError) as caught:
        load_corpus(card(reader="dicom", privacy={"identifiers": "unknown"}), str(tmp_path))
    listed = Path.home() / ".cache" / "domainclip" / "unusable-test.tsv"
    assert str(caught.value) == (
        "corpus test: 1 of 1 items are unusable (100.0%, limit 1.0%): 1 missing file; first: row 1 (missing "
        f"file); mend them or raise corpus.max_bad (list: {listed})"
    )
    assert listed.read_text(encoding="utf-8").splitlines()[1].endswith("Canary_John.dcm")
    assert listed.stat().st_mode & 0o077 == 0


def test_wrong_options(tmp_path: Path) -> None:
    _studies(tmp_path)
    table(tmp_path, [{"accession": "A0", "text": "x"}], "texts.csv", pictures=False)
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
    assert str(caught.value) == (
        f"corpus.options.reports: the file lies outside the corpus folder {tmp_path}: move or copy it inside"
    )
    with pytest.raises(DataError) as caught:
        _read(tmp_path / "none.csv")
    assert str(caught.value) == f"{tmp_path / 'none.csv'}: no such file: check corpus.path"


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
        _, journal = _read(tmp_path)
        assert ("file 1", "no pixel data") in [(bad.place, bad.reason) for bad in journal.bad]
