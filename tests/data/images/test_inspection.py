from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from domainclip.data.images import inspection
from domainclip.data.images.perceptual_hashes import hash_thumbnail
from domainclip.errors import UnreadableImage
from tests.data.image_copies import film
from tests.data.made_corpora import dicom_file


def _image(path: Path) -> dict[str, Any]:
    return {"path": str(path), "bytes": None}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


def test_the_inspection_of_an_image(tmp_path: Path) -> None:
    # 3 wide and 2 high as stored, red; EXIF 6 rotates it.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (3, 2), (255, 0, 0)).save(tmp_path / "a.png", exif=exif)
    inspected = inspection.inspect_image(_image(tmp_path / "a.png"))
    assert (inspected["width"], inspected["height"], inspected["mode"]) == (2, 3, b"RGB")
    assert inspected["rotated"]
    assert inspected["blank"]
    assert inspected["reason"] == b""
    # Red is grey 76; its Cb is 84.97, which Pillow truncates, and its Cr 255.5, which is limited to 255.
    assert (inspected["thumbnail"] == 76).all()
    assert inspected["colour"].tolist() == [84, 255]
    assert (inspected["hashes"] == hash_thumbnail(inspected["thumbnail"])).all()


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"no image")
    assert inspection.inspect_image(_image(tmp_path / "b.png"))["reason"] == b"not an image"
    assert inspection.inspect_image(_image(tmp_path / "c.png"))["reason"] == b"missing file"
    Image.new("CMYK", (8, 8)).save(tmp_path / "d.jpg")
    assert inspection.inspect_image(_image(tmp_path / "d.jpg"))["mode"] == b"CMYK"
    dicom_file(tmp_path / "e.dcm", np.arange(64, dtype=np.uint16).reshape(8, 8))
    inspected = inspection.inspect_image(_image(tmp_path / "e.dcm"))
    assert (inspected["mode"], bool(inspected["blank"])) == (b"DICOM", False)


def test_a_second_inspection_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "BLOCK", 2)
    for seed in range(5):
        film(seed, 80).save(tmp_path / f"{seed}.png")
    images = [_image(tmp_path / f"{seed}.png") for seed in range(5)]
    digests = [f"digest {seed}" for seed in range(5)]
    first = inspection.inspect_images(images[:4], digests[:4])
    assert inspection.is_inspection_cached(digests[:4])
    assert not inspection.is_inspection_cached(digests)
    decoded: list[str] = []
    plain = inspection.inspect_image
    monkeypatch.setattr(
        inspection, "inspect_image", lambda image: decoded.append(image["path"]) or plain(image)
    )
    again = inspection.inspect_images(images, digests)  # one more image: the earlier blocks stay valid
    assert decoded == [images[4]["path"]]
    assert (again[:4] == first).all()
    assert not list((tmp_path / "cache").rglob("*digest*"))


def test_reasons_that_may_disappear_are_not_cached(tmp_path: Path) -> None:
    image = _image(tmp_path / "late.png")
    assert inspection.inspect_images([image], ["x"])["reason"].tolist() == [b"missing file"]
    film(1, 80).save(tmp_path / "late.png")
    assert inspection.inspect_images([image], ["x"])["reason"].tolist() == [b""]


@pytest.mark.parametrize(
    ("reason", "again"),
    [
        ("FITS needs astropy: pip install domainclip[astro]", 2),
        ("broken image (ModuleNotFoundError)", 2),
        ("no FITS file of band {stem}_g.fits", 2),
        ("more memory than there is", 2),
        ("truncated image", 1),
    ],
)
def test_only_faults_of_the_content_are_cached(
    reason: str, again: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []

    def decode(image: dict[str, Any]) -> Image.Image:
        decoded.append(image["path"])
        raise UnreadableImage(image["path"], reason)

    monkeypatch.setattr(inspection, "decode_image", decode)
    for _ in range(2):
        assert inspection.inspect_images([_image(tmp_path / "a")], ["x"])["reason"].tolist() == [
            reason.encode()
        ]
    assert len(decoded) == again
    assert inspection.is_inspection_cached(["x"]) == (again == 1)


def test_a_read_only_cache_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "file"))
    film(1, 80).save(tmp_path / "a.png")
    assert inspection.inspect_images([_image(tmp_path / "a.png")], ["x"])["width"].tolist() == [80]


def test_processes_give_the_same_inspections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_MIN_FOR_PROCESSES", 1)
    for seed in range(3):
        film(seed, 80).save(tmp_path / f"{seed}.png")
    images = [_image(tmp_path / f"{seed}.png") for seed in range(3)]
    shared = inspection.inspect_images(images, ["a", "b", "c"], workers=2)
    assert (shared == np.stack([inspection.inspect_image(image) for image in images])).all()
    assert len(inspection.inspect_images([], [])) == 0
