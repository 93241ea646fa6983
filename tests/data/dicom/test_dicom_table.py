"""The table of docs/guide/dicom.md: each file of pydicom decodes as by pydicom, or is refused with a reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest

from benchmarks import dicom_table
from benchmarks.dicom_table import DIFFERENT, EQUAL, Outcome
from tests.data.made_corpora import dicom_file

REASONS = {
    "no pixel data",
    "no DICOM preamble",
    "pixel data cut off",
    "not an image",
    "the attribute",
    "compressed data of more pixels than its header says",
}


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [dicom_table.outcome(file) for file in dicom_table.wheel()]


def test_every_file_of_pydicom_is_decoded_or_refused_with_a_known_reason(outcomes: list[Outcome]) -> None:
    results = Counter(outcome.result for outcome in outcomes)
    assert len(outcomes) > 150
    assert results[EQUAL] > 90
    assert results[DIFFERENT] == 0
    unnamed = [reason for reason in results if reason != EQUAL and not reason.startswith(tuple(REASONS))]
    assert unnamed == []


def test_the_table_in_the_docs_is_up_to_date(outcomes: list[Outcome]) -> None:
    page = dicom_table.PAGE.read_text(encoding="utf-8")
    assert dicom_table.between(page, "wheel", dicom_table.tables(outcomes)) == page


def test_a_file_that_differs_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = dicom_file(tmp_path / "a.dcm", np.array([[0, 100, 255]], np.uint8))
    assert dicom_table.outcome(file) == Outcome("Explicit VR Little Endian", "MONOCHROME2", EQUAL)
    plain = dicom_table.pydicoms
    monkeypatch.setattr(dicom_table, "pydicoms", lambda dataset: plain(dataset) ^ np.uint8(1))
    assert dicom_table.outcome(file).result == DIFFERENT


@pytest.mark.parametrize(
    "attributes",
    [
        {"WindowCenter": 100, "WindowWidth": 50},
        {"WindowCenter": 100, "WindowWidth": 50, "VOILUTFunction": "SIGMOID"},
        {"RescaleSlope": 2, "RescaleIntercept": -7, "PhotometricInterpretation": "MONOCHROME1"},
        {"RescaleSlope": 1, "RescaleIntercept": -1024, "Modality": "CT", "PixelPaddingValue": 3},
    ],
)
def test_pydicom_is_the_reference_and_agrees(tmp_path: Path, attributes: dict[str, object]) -> None:
    stored = np.random.default_rng(0).integers(0, 4096, (9, 11)).astype(np.uint16)
    file = dicom_file(tmp_path / "a.dcm", stored, **attributes)
    assert dicom_table.outcome(file).result == EQUAL
    assert dicom_table.pydicoms(pydicom.dcmread(file)).std() > 1
