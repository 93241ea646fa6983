"""The shipped cards on real corpora, where a folder with them is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from domainclip.data.cards import load_card
from domainclip.data.checks.run_checks import corpus_findings
from domainclip.data.corpus import load_corpus
from domainclip.data.images.decode import decode_image

ROOT = Path(os.environ.get("DOMAINCLIP_SHARED", "../shared")) / "corpora"

pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="no folder of real corpora at $DOMAINCLIP_SHARED")


@pytest.mark.parametrize(
    ("name", "folder", "sizes", "classes"),
    [
        ("medical_xray", "medical", (1182, 196, 345), 5),
        ("astronomy", "astronomy", (1059, 162, 359), 8),
        ("art_paintings", "art", (1380, 215, 354), 10),
        ("multilingual", "multilingual", (696, 105, 199), 0),
        ("general", "general", (0, 0, 1159), 998),
    ],
)
def test_a_shipped_card_reads_its_corpus(
    name: str, folder: str, sizes: tuple[int, ...], classes: int
) -> None:
    corpus = load_corpus(load_card(name), str(ROOT / folder), secret=b"test")
    assert tuple(map(len, corpus.splits.values())) == sizes
    assert len(corpus.classes) == classes
    assert corpus.unusable == []
    assert [
        finding for finding in corpus_findings(corpus, None, 64, sample=24) if finding.level == "error"
    ] == []


def test_every_dicom_file_is_decoded() -> None:
    pytest.importorskip("gdcm", reason="needs the dicom extra")
    files = sorted((ROOT / "medical" / "dicom").glob("*.dcm"))
    assert len(files) == 14
    for file in files:
        low, high = decode_image({"path": str(file), "bytes": None}).convert("L").getextrema()
        assert isinstance(low, int)
        assert isinstance(high, int)
        assert high - low > 100
