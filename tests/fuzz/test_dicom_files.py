"""DICOM files with a changed header: an image, or a reason without a value; in a folder none is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st

from domainclip.data.cards import Card
from tests.fuzz import corpora, dicom_files
from tests.fuzz.corpora import image_name, plain_rows  # noqa: F401
from tests.fuzz.oracle import CANARY, Room
from tests.fuzz.test_image_files import decode

MakeRoom = Callable[[str], Room]


def test_dicom_images(room: MakeRoom) -> None:
    here = room("DICOM images")
    for kind, data in dicom_files.samples().items():
        decode(here, data, kind)
    assert here.accepted == len(dicom_files.samples()) - 1, here.refused  # all but the report

    @here.each(0.21, changed=dicom_files.BROKEN)
    def _(changed: dicom_files.Changed) -> None:
        decode(here, changed.data, changed)


_COLUMNS = {"meta": ["PatientAge", "PatientSex"], "labels": "Modality"}
_CARDS = [
    {"columns": {**_COLUMNS, "texts": ["StudyDescription"]}},
    {"captions": {"template": "{Modality}, {StudyDescription}"}, "columns": _COLUMNS},
    {"options": {"frames": "all"}, "columns": {"texts": ["ImageComments"]}},
    {"options": {"study": "study"}, "columns": {"texts": ["StudyDescription"], "group": "StudyInstanceUID"}},
    {"options": {"window": 1}, "columns": {"texts": ["StudyDescription"]}},
]


@pytest.mark.usefixtures("plain_rows")
def test_dicom_folders(room: MakeRoom) -> None:
    here = room("DICOM folders")
    folder = Path("dicom")

    @here.each(
        0.01,
        changed=st.lists(dicom_files.BROKEN, min_size=1, max_size=3),
        keys=st.sampled_from(_CARDS),
        suffix=st.sampled_from(["dcm", "", "IMA"]),
    )
    def _(changed: list[dicom_files.Changed], keys: dict[str, object], suffix: str) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        names = [image_name(number, suffix).rstrip(".") for number in range(len(changed))]
        for name, one in zip(names, changed, strict=True):
            (folder / name).write_bytes(one.data)
        (folder / f"{CANARY}999.dcm").write_bytes(dicom_files.samples()["grey"])
        card = Card.model_validate({"reader": "dicom", "max_unusable": 0, **keys})
        reading = corpora.observe(here, card, folder, changed)
        if reading is None:
            return
        here.quarantined += len(reading.unusable)
        noted = sum(
            int(word)
            for note in reading.notes
            for word in note.replace(":", "").replace(",", "").split()
            if word.isdecimal()
        )
        lost = {f"{CANARY}{number:03d}" for number in range(len(changed))} - reading.names()
        here.require(
            len(lost) <= noted, "silent loss", "a file is neither an item, unusable nor in a note", changed
        )
