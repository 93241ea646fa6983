"""A prepared corpus holds no identifier of a report by accident: refused, redacted or kept by choice."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from domainclip.data.cards import load_card
from domainclip.data.images.reencode import Reencoder
from domainclip.errors import DataError
from domainclip.pipelines.data_prepare import write_prepared_corpus
from domainclip.pipelines.prepared_shards import PrepareRequest
from tests.data.made_corpora import dicom_file, noise_image, table

COLUMNS = {"image": "file_name", "texts": "text", "group": "patient", "split": "split"}
TEXTS = [
    "Normal heart.",
    "Mrs. Planted, born on 12.03.1956: effusion.",
    "Effusion of patient 7712-B, stable.",  # the group of its own row
    "Nodule.",
]


def _corpus(folder: Path) -> Path:
    rows = [
        {"file_name": f"{i}.png", "text": text, "patient": f"77{i + 10}-B", "split": "train"}
        for i, text in enumerate(TEXTS)
    ]
    made = table(folder, rows)
    for i in range(len(rows)):
        noise_image(folder / f"{i}.png", i)
    return made


def _prepare(path: Path, out: Path, policy: str, lines: list[str] | None = None, **card: object) -> Path:
    request = PrepareRequest(Reencoder(16), "tar", 2, policy)  # type: ignore[arg-type]
    made = load_card(None, {"columns": COLUMNS, **card})
    return write_prepared_corpus(
        made, str(path), out, request, 1, (lines if lines is not None else []).append
    )


def _shards(out: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(out.glob("*.tar")))


def test_identifiers_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _prepare(_corpus(tmp_path / "source"), tmp_path / "out", "refuse")
    message = str(caught.value)
    assert message.startswith(
        "captions: date of birth in 1 captions, name in 1, record number in 1: these may "
    )
    assert "--identifiers redact" in message
    assert not any(secret in message for secret in ("Planted", "1956", "7712"))
    assert not (tmp_path / "out").exists()


def test_identifiers_are_replaced_by_their_kind(tmp_path: Path) -> None:
    lines: list[str] = []
    manifest = _prepare(_corpus(tmp_path / "source"), tmp_path / "out", "redact", lines)
    shards = _shards(tmp_path / "out")
    assert b"[name], [date of birth]: effusion." in shards
    assert (
        b"Effusion of patient [record number], stable." in shards or b"Effusion of [record number]" in shards
    )
    assert not any(secret in shards for secret in (b"Planted", b"1956", b"7712"))
    assert any(
        line.startswith("captions that may identify a person: date of birth in 1 captions") for line in lines
    )
    written = json.loads(manifest.read_text())
    assert written["settings"]["identifiers"] == "redact"
    assert sum(n for shard in written["shards"] for n in shard["identifiers"].values()) == 3


def test_captions_are_written_unchanged_only_when_asked(tmp_path: Path) -> None:
    lines: list[str] = []
    _prepare(_corpus(tmp_path / "source"), tmp_path / "out", "keep", lines)
    assert b"Mrs. Planted, born on 12.03.1956: effusion." in _shards(tmp_path / "out")
    assert any("written unchanged, as asked" in line for line in lines)


def test_a_card_without_persons_is_not_searched(tmp_path: Path) -> None:
    _prepare(_corpus(tmp_path / "source"), tmp_path / "out", "refuse", privacy={"identifiers": "none"})
    assert b"Mrs. Planted" in _shards(tmp_path / "out")


def test_another_policy_is_another_corpus(tmp_path: Path) -> None:
    source = _corpus(tmp_path / "source")
    _prepare(source, tmp_path / "out", "keep")
    with pytest.raises(DataError, match="was prepared from another identifiers"):
        _prepare(source, tmp_path / "out", "redact")


def test_a_report_is_searched_for_the_header_of_its_study(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    pixels = np.zeros((8, 8), np.uint16)
    dicom_file(
        folder / "a.dcm", pixels, PatientName="Quillfeather^Ann", PatientID="P1", PatientBirthDate="19560312"
    )
    with (folder / "reports.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(
            [
                ["file_name", "text", "patient", "split"],
                ["a.dcm", "Ms Quillfeather seen 3/12/56.", "p", "train"],
            ]
        )
    _prepare(folder / "reports.csv", tmp_path / "out", "redact")
    assert b"Quillfeather" not in _shards(tmp_path / "out")
    assert b"[name] seen [date of birth]." in _shards(tmp_path / "out")
