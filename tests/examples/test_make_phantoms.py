"""The chest phantoms: reproducible DICOM files whose pictures, reports and labels agree."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_voi_lut
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from examples import make_phantoms
from examples.make_phantoms import COLUMNS, LABELS, Study, draw, report, studies

SCRIPT = Path(make_phantoms.__file__)
AFFIRMED = {
    "normal": r"clear|normal|no (focal|acute|active)",
    "cardiomegaly": r"cardiomegaly|enlarge|wide",
    "pleural effusion": r"effusion|fluid|pleural space",
    "pneumothorax": r"pneumothorax|pleural (line|space)",
    "consolidation": r"consolidation|opacity|pneumonia",
    "nodule": r"nodule|spot",
}
DENIED = re.compile(
    r"^(no\b|there is no\b|lungs without|normal heart|heart size is normal|the heart is not|the costo)",
    re.IGNORECASE,
)
MANY = studies(0, 150)


def of(label: str, **wanted: str) -> Study:
    """The first study with a label and any other property."""
    return next(s for s in MANY if s.label == label and all(getattr(s, k) == v for k, v in wanted.items()))


def bytes_of(study: Study) -> bytes:
    """The file as it is written."""
    stream = io.BytesIO()
    make_phantoms.dicom(study).save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def shown(study: Study) -> np.ndarray:
    """The picture as a viewer shows it, 0 to 1, from the bytes of the file."""
    dataset = pydicom.dcmread(io.BytesIO(bytes_of(study)))
    grey = apply_voi_lut(dataset.pixel_array, dataset).astype(float) / 4095
    return np.asarray(1 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey)


def digest(folder: Path) -> str:
    """One hash of the names and bytes of all files."""
    whole = hashlib.blake2b()
    for file in sorted(folder.rglob("*.*")):
        whole.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return whole.hexdigest()


def test_same_seed_same_bytes_in_another_process(tmp_path: Path) -> None:
    make_phantoms.write(tmp_path / "a", 4)
    command = [sys.executable, str(SCRIPT), str(tmp_path / "b"), "--patients", "4"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"})
    assert said.stdout == f"{tmp_path / 'b' / 'reports.csv'}\n"
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    make_phantoms.write(tmp_path / "c", 4, seed=1)
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


def test_more_patients_leave_the_first_ones_as_they_are() -> None:
    assert studies(0, 20) == studies(0, 150)[: len(studies(0, 20))]


def test_the_table_names_every_file(tmp_path: Path) -> None:
    table = make_phantoms.write(tmp_path, 6)
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert sorted(row["file_name"] for row in rows) == sorted(
        file.relative_to(tmp_path).as_posix() for file in tmp_path.glob("images/*")
    )
    for row in rows:
        dataset = pydicom.dcmread(tmp_path / row["file_name"])
        assert (dataset.PatientID, dataset.PatientSex, dataset.ViewPosition, int(dataset.PatientAge[:3])) == (
            row["patient_id"],
            row["sex"],
            row["view"],
            int(row["age"]),
        )


@pytest.mark.parametrize(
    ("syntax", "uid"),
    [("plain", ExplicitVRLittleEndian), ("rle", RLELossless), ("deflated", DeflatedExplicitVRLittleEndian)],
)
def test_every_syntax_decodes_to_the_same_picture(syntax: str, uid: str) -> None:
    study = MANY[0]
    dataset = pydicom.dcmread(io.BytesIO(bytes_of(replace(study, syntax=syntax))))
    assert dataset.file_meta.TransferSyntaxUID == uid
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.Modality) == (16, 12, "CR")
    plain = pydicom.dcmread(io.BytesIO(bytes_of(replace(study, syntax="plain"))))
    assert dataset.pixel_array.max() <= 4095
    assert np.array_equal(dataset.pixel_array, plain.pixel_array)


def test_inverted_twin_looks_the_same() -> None:
    for study in MANY[:6]:
        twins = [shown(replace(study, inverted=inverted)) for inverted in (False, True)]
        # A window of whole numbers cannot be mirrored exactly: under two of 256 greys.
        assert np.abs(twins[0] - twins[1]).max() < 2 / 256
        assert np.abs(twins[0] - (1 - twins[1])).mean() > 0.2  # and inversion is no small matter


def test_headers_are_plainly_invented_and_uids_unique() -> None:
    datasets = [pydicom.dcmread(io.BytesIO(bytes_of(study))) for study in MANY[:20]]
    assert all(str(d.PatientName).startswith("PHANTOM^") for d in datasets)
    assert all(d.InstitutionName == "NO HOSPITAL (GENERATED)" for d in datasets)
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        assert len({d[keyword].value for d in datasets}) == 20


def test_the_mixture_is_as_the_card_says() -> None:
    found = Counter(study.label for study in studies(0, 420))
    shares = {label: found[label] / found.total() for label in LABELS}
    assert shares["normal"] == pytest.approx(0.25, abs=0.04)
    assert min(shares.values()) > 0.1
    assert 0.2 < np.mean([study.inverted for study in MANY]) < 0.4
    assert {study.syntax for study in MANY} == {"plain", "rle", "deflated"}


@pytest.mark.parametrize("label", LABELS)
def test_reports_say_the_label_and_deny_the_rest(label: str) -> None:
    for study in (s for s in MANY if s.label == label):
        findings, impression = report(study)
        sentences = re.findall(r"[^.]+\.", findings)
        denied = [
            s for s in sentences if DENIED.match(s.strip()) and not s.strip().startswith("No focal abn")
        ]
        affirmed = [s for s in sentences if s not in denied]
        assert 1 <= len(denied) <= 2
        assert len(affirmed) == 1, findings
        for sentence in (*affirmed, impression):
            assert re.search(AFFIRMED[label], sentence, re.IGNORECASE), sentence
        if label != "normal":
            assert not any(re.search(label.split()[-1], s, re.IGNORECASE) for s in denied), findings


def test_reports_name_the_side_and_no_other() -> None:
    for study in MANY:
        words = set(re.findall("left|right|both sides|bilaterally", " ".join(report(study)).lower()))
        words -= {"both sides", "bilaterally"} if study.laterality == "both" else set()
        assert words == ({study.laterality} & {"left", "right"}), report(study)


@pytest.mark.parametrize("label", ["pleural effusion", "pneumothorax", "consolidation", "nodule"])
@pytest.mark.parametrize(("side", "half"), [("right", 0), ("left", 1)])
def test_a_finding_stands_on_the_patients_side(label: str, side: str, half: int) -> None:
    """Without the finding the picture is the same but for it; the patient's right is the picture's left."""
    study = of(label, laterality=side)
    changed = np.abs(draw(study) - draw(replace(study, label="normal", laterality="", size="", zone="")))
    middle = changed.shape[1] // 2
    halves = (changed[:, : middle - 8].sum(), changed[:, middle + 8 :].sum())
    assert halves[half] > 10
    assert halves[1 - half] < 0.02 * halves[half]


def test_a_large_heart_is_wider() -> None:
    study = of("cardiomegaly", size="large")
    changed = draw(study) - draw(replace(study, label="normal", size=""))
    wider = np.flatnonzero((changed > 0.15).any(axis=0))
    assert wider.min() < changed.shape[1] * 0.45  # it grows to both sides
    assert wider.max() > changed.shape[1] * 0.65
    assert not (changed[: changed.shape[0] // 4] > 0.15).any()  # and not into the neck
