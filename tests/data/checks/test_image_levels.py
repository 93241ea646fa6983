"""Images that show next to nothing are reported, and the remedy that the finding names helps."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domainclip.data.checks.findings import Finding
from domainclip.data.checks.image_levels import fits_planes, low_contrast
from domainclip.data.checks.images import inspect_corpus
from domainclip.data.corpus import load_corpus
from domainclip.pipelines.data_check.target import from_card

_SCENE = np.asarray(
    Image.fromarray(np.random.default_rng(0).integers(60, 256, (8, 8), dtype=np.uint8)).resize((64, 64), 3)
).astype(np.float64)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


def _findings(folder: Path, *changes: str) -> list[Finding]:
    target = from_card(None, str(folder), ["reader=folder", *changes])
    inspected = inspect_corpus(load_corpus(target.card, target.path), None)
    return [*low_contrast(inspected), *fits_planes(inspected)]


def _folder(tmp_path: Path, values: np.ndarray, suffix: str = "png") -> Path:
    folder = tmp_path / "images"
    (folder / "kind").mkdir(parents=True)
    for number in range(3):
        file = folder / "kind" / f"{number}.{suffix}"
        if suffix == "fits":
            pytest.importorskip("astropy.io.fits").PrimaryHDU(np.roll(values, number)).writeto(file)
        else:
            Image.fromarray(np.roll(values, number)).save(file)
    return folder


def _bright_corner(values: np.ndarray, level: float) -> np.ndarray:
    values = values.copy()
    values[:3, :30] = level  # 2 % of the pixels
    return values


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (_SCENE / 20, "nearly black"),
        (243 + _SCENE / 25, "nearly white"),
        (120 + _SCENE / 60, "flat"),
    ],
)
def test_eight_bits(values: np.ndarray, kind: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path, values.astype(np.uint8))
    (finding,) = _findings(folder)
    assert (finding.level, finding.code, finding.count) == ("warning", "low_contrast", 3)
    assert finding.text.startswith(
        f"3 of 3 images come out {kind} (3); first: file 1, file 2, file 3; look at"
    )
    assert finding.text.endswith("set corpus.checks.low_contrast=info")


def test_a_normal_image_is_no_finding(tmp_path: Path) -> None:
    assert not _findings(_folder(tmp_path, _SCENE.astype(np.uint8)))


def _remedies(finding: Finding) -> list[str]:
    words = (word.rstrip(";,") for word in shlex.split(finding.text))
    return [word for word in words if word.startswith("corpus.images.") and "=" in word]


def test_the_remedy_for_sixteen_bits_helps(tmp_path: Path) -> None:
    folder = _folder(tmp_path, _bright_corner(_SCENE, 65535).astype(np.uint16))
    (finding,) = _findings(folder)
    assert "nearly black (3)" in finding.text
    (remedy,) = _remedies(finding)
    assert not _findings(folder, remedy)


def test_a_remedy_for_fits_helps(tmp_path: Path) -> None:
    folder = _folder(tmp_path, _bright_corner(_SCENE, 1e7), "fits")
    (finding,) = _findings(folder)
    remedies = _remedies(finding)
    assert remedies == ["corpus.images.fits.stretch=zscale", "corpus.images.fits.smooth=3"]
    assert not _findings(folder, remedies[0])


def test_the_remedy_for_counts_of_few_photons_helps(tmp_path: Path) -> None:
    counts = np.zeros((256, 256), np.int32)
    places = np.random.default_rng(1).integers(0, 256, (2, 200))
    counts[places[0], places[1]] = 1
    counts[7, 7] = 100_000
    folder = _folder(tmp_path, counts, "fits")
    (finding,) = _findings(folder)
    assert "nearly black (3)" in finding.text
    assert not _findings(folder, _remedies(finding)[1])


def test_several_images_in_a_file_without_a_named_hdu(tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    folder = tmp_path / "images"
    (folder / "kind").mkdir(parents=True)
    planes = [fits.ImageHDU(_SCENE.T, name="WHT"), fits.ImageHDU(_SCENE, name="SCI")]
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(folder / "kind" / "a.fits")
    (finding,) = _findings(folder)
    assert (finding.code, finding.count) == ("fits_planes", 1)
    assert "corpus.images.fits.hdu=SCI,0" in finding.text
    assert not _findings(folder, "corpus.images.fits.hdu=SCI,0")
