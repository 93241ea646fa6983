"""FITS files without pixels or finite values are left out and counted by the commands."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from domainclip.data.checks.run_checks import corpus_findings
from domainclip.data.corpus import load_corpus
from domainclip.data.images.reencode import Reencoder
from domainclip.pipelines.data_check import check, contact_sheet
from domainclip.pipelines.data_check.target import from_card
from domainclip.pipelines.data_prepare import write_prepared_corpus
from domainclip.pipelines.prepared_shards import PrepareRequest

fits = pytest.importorskip("astropy.io.fits", reason="needs the astro extra")

_UNUSABLE = {
    "empty": [fits.PrimaryHDU(), fits.ImageHDU(np.zeros((0, 0)))],
    "nan": [fits.PrimaryHDU(np.full((64, 64), np.nan))],
}


@pytest.fixture
def sky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four fields with their weight map first, and two files without an image."""
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "sky").mkdir()
    for number in range(4):
        field = np.random.default_rng(number).normal(100, 10, (64, 64))
        planes = [fits.ImageHDU(np.ones((64, 64)), name="WHT"), fits.ImageHDU(field, name="SCI")]
        fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(tmp_path / "sky" / f"{number}.fits")
    for name, hdus in _UNUSABLE.items():
        fits.HDUList(hdus).writeto(tmp_path / "sky" / f"{name}.fits")
    for file in (tmp_path / "sky").glob("*.fits"):
        file.with_suffix(".txt").write_text(f"a field of the sky, {file.stem}")
    return tmp_path / "sky"


@pytest.mark.parametrize(("limit", "level"), [("0", "error"), ("0.1", "error"), ("0.5", "warning")])
def test_data_check_counts_them(sky: Path, limit: str, level: str) -> None:
    target = from_card(None, str(sky), ["reader=folder", f"max_unusable={limit}"])
    findings = corpus_findings(load_corpus(target.card, target.path), None, 4)
    (finding,) = [finding for finding in findings if finding.code == "unreadable_images"]
    assert (finding.level, finding.count) == (level, 2)
    assert "1 no finite value in this FITS image, 1 no image in this FITS file" in finding.text


def test_data_prepare_leaves_them_out_and_reports_it(sky: Path, tmp_path: Path) -> None:
    target = from_card(None, str(sky), ["reader=folder", "max_unusable=0.5"])
    lines: list[str] = []
    request = PrepareRequest(Reencoder(32), items=9)
    manifest = write_prepared_corpus(target.card, str(sky), tmp_path / "out", request, 1, lines.append)
    assert lines[-1].endswith(
        "; 2 left out: 1 no finite value in this FITS image, 1 no image in this FITS file"
    )
    content = json.loads(manifest.read_text())
    assert sum(content["counts"].values()) == 4
    assert Counter(content["left_out"]).total() == 2


def test_the_preview_names_hdu_and_stretch_of_each_file(sky: Path) -> None:
    target = from_card(None, str(sky), ["reader=folder", "max_unusable=0.5"])
    shown = list(contact_sheet.items(check.check_corpus(target), 6))
    described = "HDU 2 (SCI) of 2 images; asinh between percentiles 0.5 and 99.5, softening 0.1"
    assert Counter(item.pipeline for item in shown) == {described: 4, "": 2}
    assert {item.problem for item in shown if not item.pipeline} == {
        "no image in this FITS file",
        "no finite value in this FITS image",
    }
