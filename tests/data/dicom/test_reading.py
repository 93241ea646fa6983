"""Attributes that are read from a header, and attributes that never are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from domainclip.data.dicom import reading, rendering
from domainclip.data.readers.sources.dicom_structured_reports import read_report_text
from domainclip.errors import UnreadableImage
from tests.data.made_corpora import dicom_file
from tests.data.made_dicom import container, item, report_file, text_item

STORED = np.arange(4, dtype=np.uint8).reshape(2, 2)
WHO = {"PatientName": "Canary^John", "PatientID": "MRN4711", "PatientBirthDate": "19500101"}


def test_reading_a_header_reads_neither_pixels_nor_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 34: attributes that are not requested are not even parsed, private ones included."""
    file = dicom_file(tmp_path / "a.dcm", STORED, **WHO, PatientSex="F")
    dataset = pydicom.dcmread(file)
    dataset.private_block(0x0011, "Canary Works", create=True).add_new(1, "LO", "Canary private")
    dataset.save_as(file)
    datasets = []
    plain = pydicom.dcmread

    def watched(*arguments: Any, **keys: Any) -> Any:
        datasets.append(plain(*arguments, **keys))
        return datasets[-1]

    monkeypatch.setattr(pydicom, "dcmread", watched)
    assert reading.read_header(file, ["PatientSex", "TransferSyntaxUID"]) == {
        "PatientSex": "F",
        "TransferSyntaxUID": "1.2.840.10008.1.2.1",
    }
    (dataset,) = datasets
    assert "PatientSex" in dataset
    assert not {"PatientName", "PatientID", "PixelData"} & {element.keyword for element in dataset}
    assert "Canary" not in str(dataset)


def test_several_values_are_separated_as_in_the_file(tmp_path: Path) -> None:
    file = dicom_file(tmp_path / "a.dcm", STORED, ImageType=["ORIGINAL", "PRIMARY"], WindowWidth=[1.5, 2])
    attributes = reading.read_header(file, ["ImageType", "WindowWidth", "BodyPartExamined"])
    assert attributes == {"ImageType": "ORIGINAL\\PRIMARY", "WindowWidth": "1.5\\2.0", "BodyPartExamined": ""}


def test_a_value_of_0_is_not_empty(tmp_path: Path) -> None:
    file = dicom_file(tmp_path / "a.dcm", STORED, InstanceNumber=0)
    assert reading.read_header(file, ["InstanceNumber"]) == {"InstanceNumber": "0"}


def test_burned_in_annotation_is_counted_and_absent_is_not_no(tmp_path: Path) -> None:
    annotations = ["YES", "NO", "NO", None, ""]
    files = [
        dicom_file(tmp_path / f"{i}.dcm", STORED, **({} if value is None else {"BurnedInAnnotation": value}))
        for i, value in enumerate(annotations)
    ]
    (tmp_path / "x.txt").write_text("no DICOM file", encoding="utf-8")
    plan = str(get_testdata_file("rtplan.dcm", download=False))
    assert reading.count_burned_in([*files, tmp_path / "x.txt", plan]) == {"YES": 1, "NO": 2, "absent": 2}
    assert reading.count_burned_in([]) == {"YES": 0, "NO": 0, "absent": 0}
    assert reading.count_burned_in([f"{files[0]}#frame=0", f"{files[0]}#frame=1", files[1]])["YES"] == 1


def test_a_structured_report_in_order_with_its_headings(tmp_path: Path) -> None:
    file = report_file(
        tmp_path / "a.dcm",
        "1.2.3",
        text_item(
            "Recording Observer's Organization Name", "Canary Hospital", RelationshipType="HAS OBS CONTEXT"
        ),
        item(ValueType="PNAME", RelationshipType="CONTAINS", PersonName="Canary^John"),
        container(
            "Findings", text_item("Finding", "The lungs\r\nare  clear."), text_item("Finding", "No mass.")
        ),
        container("Impression", container("", text_item("Impression", "Normal chest."))),
        text_item("Comment", "None."),
        text_item("Empty", "  "),
        PatientName="Canary^John",
    )
    assert read_report_text(file) == (
        "1.2.3",
        "Findings: The lungs are clear. No mass.\nImpression: Normal chest.\nComment: None.",
    )


def test_sections_of_a_structured_report_can_be_left_out(tmp_path: Path) -> None:
    from domainclip.data.text.report_sections import extract_sections

    file = report_file(
        tmp_path / "a.dcm",
        "1.2.3",
        container("Findings", text_item("Finding", "Clear.")),
        container("Impression", text_item("Impression", "Normal.")),
    )
    assert extract_sections(read_report_text(file)[1], {"impression": [], "findings": []}) == {
        "impression": "Normal.",
        "findings": "Clear.",
    }


@pytest.mark.parametrize(
    ("code", "meaning", "line"),
    [
        ("121076", "Conclusions", "Conclusions: Normal."),
        ("121076", "Slotbeschouwing", "Impression: Normal."),
        ("19005-8", "Radiology Imaging study [Impression]", "Impression: Normal."),
        ("121070", "Zjistene zmeny", "Findings: Normal."),
        ("121060", "History", "History: Normal."),
    ],
)
def test_the_code_of_a_section_names_it_where_its_meaning_does_not(
    tmp_path: Path, code: str, meaning: str, line: str
) -> None:
    section = container(meaning, text_item("Text", "Normal."))
    section.ConceptNameCodeSequence[0].CodeValue = code
    assert read_report_text(report_file(tmp_path / "a.dcm", "1.2.3", section))[1] == line


def test_a_report_that_is_nested_too_deeply(tmp_path: Path) -> None:
    deep = text_item("Finding", "too deep")
    for _ in range(60):
        deep = container("Findings", deep)
    file = report_file(tmp_path / "a.dcm", "1.2.3", deep, text_item("Comment", "Read."))
    assert read_report_text(file)[1] == "Comment: Read."


def test_pydicoms_own_reports_are_read() -> None:
    texts = {
        name: read_report_text(Path(str(get_testdata_file(name, download=False))))[1]
        for name in ("reportsi.dcm", "test-SR.dcm")
    }
    assert texts["reportsi.dcm"] == "Section Heading: Enter text"
    assert texts["test-SR.dcm"].startswith("Text Code: A mass of was detected.")


def test_a_broken_report(tmp_path: Path) -> None:
    file = tmp_path / "a.dcm"
    file.write_bytes(b"no report")
    with pytest.raises(UnreadableImage) as caught:
        read_report_text(file)
    assert caught.value.reason == "no DICOM preamble"


@pytest.mark.parametrize(
    ("modality", "storage", "reason"),
    [
        ("SR", "1.2.840.10008.5.1.4.1.1.88.11", "not an image (SR)"),
        ("DOE JANE 561103", "1.2.840.10008.5.1.4.1.1.88.11", "not an image (Basic Text SR Storage)"),
        ("DOE", "1.2.840.10008.5.1.4.1.1.88.11", "not an image (Basic Text SR Storage)"),
        ("", "1.2.840.10008.5.1.4.1.1.88.11", "not an image (Basic Text SR Storage)"),
        ("DOE JANE 561103", "1.2.826.0.1.4711", "no pixel data"),
    ],
)
def test_a_modality_is_quoted_only_if_the_standard_defines_it(
    tmp_path: Path, modality: str, storage: str, reason: str
) -> None:
    """Fault 34: Modality may contain any text."""
    file = dicom_file(tmp_path / "a.dcm", None, Modality=modality, SOPClassUID=storage)
    with pytest.raises(UnreadableImage) as caught:
        reading.read_header(file, ["PatientSex"])
    assert caught.value.reason == reason


def test_a_large_deflated_file_is_read_to_its_end(tmp_path: Path) -> None:
    """The deflated bytes are read in several chunks, and are followed by other bytes."""
    stored = np.random.default_rng(0).integers(0, 4096, (1200, 1500), dtype=np.uint16)
    file = dicom_file(tmp_path / "large.dcm", stored)
    dataset = pydicom.dcmread(file)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(file)
    with file.open("ab") as stream:
        stream.write(b"\0" * 3)
    assert file.stat().st_size > 2**21
    image = rendering.render_image(file.read_bytes(), "large.dcm", 10**7)
    assert image.size == (1500, 1200)
    assert reading.read_header(file, ["Modality"]) == {"Modality": str(dataset.get("Modality") or "")}


@pytest.mark.parametrize("vr", [b"U\0", b"ZZ", b"\0\0", b"FD"])
@pytest.mark.parametrize("tag", [b"\x02\0\x02\0", b"\x02\0\x10\0", b"\x08\0\x16\0", b"\x08\0\x60\0"])
def test_an_unknown_type_of_a_uid_or_modality_costs_one_file(tmp_path: Path, tag: bytes, vr: bytes) -> None:
    file = dicom_file(tmp_path / "a.dcm", None)
    data = file.read_bytes()
    place = data.index(tag, 128) + 4
    file.write_bytes(data[:place] + vr + data[place + 2 :])
    with pytest.raises(UnreadableImage, match=r"no pixel data|not an image|broken"):
        reading.read_header(file, ["PatientSex"])
