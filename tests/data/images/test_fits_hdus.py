"""Which image of a FITS file is shown, and files that have none."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from domainclip.data.files import locations
from domainclip.data.images.decode import MAX_PIXELS, decode_image
from domainclip.data.images.fits import describe_fits
from domainclip.data.images.fits_settings import FitsSettings
from domainclip.errors import UnreadableImage

fits = pytest.importorskip("astropy.io.fits", reason="needs the astro extra")

SKY = np.arange(64, dtype=np.float32).reshape(8, 8)
WEIGHT = np.eye(8, dtype=np.float32)


def _file(*hdus: Any) -> bytes:
    stream = io.BytesIO()
    fits.HDUList(list(hdus)).writeto(stream, output_verify="ignore")
    return stream.getvalue()


def _header(*cards: str, data: int = 0) -> bytes:
    return b"".join(card.ljust(80).encode() for card in (*cards, "END")).ljust(2880) + bytes(data)


def _axes(bits: object, *axes: object, data: int = 0) -> bytes:
    cards = ["SIMPLE  =                    T", f"BITPIX  = {bits:>20}", f"NAXIS   = {len(axes):>20}"]
    return _header(*cards, *(f"NAXIS{i}  = {n:>20}" for i, n in enumerate(axes, 1)), data=data)


def _rendered(data: bytes, **keys: str) -> np.ndarray:
    return np.asarray(decode_image({"path": locations.join_location("a.fits", keys), "bytes": data}))


def _reason(data: bytes, **keys: str) -> str:
    with pytest.raises(UnreadableImage) as caught:
        _rendered(data, **keys)
    return caught.value.reason


def _shows_sky(data: bytes, **keys: str) -> bool:
    return bool((_rendered(data, **keys) == _rendered(_file(fits.PrimaryHDU(SKY)))).all())


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: _file(fits.PrimaryHDU(), fits.ImageHDU(np.zeros((0, 0)))), id="0x0-extension"),
        pytest.param(lambda: _axes(8, 0, 0), id="0x0"),
        pytest.param(lambda: _axes(-32, 64, 0), id="64x0"),
        pytest.param(lambda: _axes(-32, 0, 64), id="0x64"),
        pytest.param(lambda: _axes(16, 64, 64, 0), id="64x64x0"),
        pytest.param(lambda: _file(fits.PrimaryHDU()), id="header-alone"),
        pytest.param(lambda: _file(fits.PrimaryHDU(np.arange(100.0))), id="spectrum"),
        pytest.param(
            lambda: _file(
                fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0, 2.0])])
            ),
            id="table",
        ),
    ],
)
def test_a_file_without_pixels_is_refused_by_name(data: Any) -> None:
    assert _reason(data()) == "no image in this FITS file"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_an_image_without_a_finite_value_is_refused(value: float, kind: Any) -> None:
    assert (
        _reason(_file(fits.PrimaryHDU(np.full((8, 8), value, kind)))) == "no finite value in this FITS image"
    )


def test_blank_and_scale_can_leave_no_finite_value() -> None:
    image = fits.PrimaryHDU(np.full((8, 8), 7, np.int16))
    image.header["BLANK"] = 7
    assert _reason(_file(image)) == "no finite value in this FITS image"


@pytest.mark.parametrize(
    "axes",
    [
        (8, -64, 64),
        (8, -64, -64),
        (7, 8, 8),
        (8, "'abc'", 8),
        (8, "8.0", "8.0"),
        (8, 10**17, 10**17),
        ("'x'", 8, 8),
    ],
)
def test_absurd_headers_are_refused_and_end(axes: tuple[Any, ...]) -> None:
    # Behind a negative size astropy would read the same header again, for ever.
    assert _reason(_axes(*axes, data=2880))


def test_an_empty_image_is_passed_over() -> None:
    assert _shows_sky(_file(fits.PrimaryHDU(), fits.ImageHDU(np.zeros((0, 0))), fits.ImageHDU(SKY)))


@pytest.mark.parametrize(
    "name", ["WHT", "ERR", "dq", "VAR", "SCI_ERR", "WEIGHT1", "MASK", "UNCERT", "exposure-map"]
)
def test_a_weight_or_mask_before_the_image_is_not_shown(name: str) -> None:
    image = fits.ImageHDU(SKY, name="R")
    assert _shows_sky(_file(fits.PrimaryHDU(), fits.ImageHDU(WEIGHT, name=name), image))
    # The control: of two images, the first.
    assert not _shows_sky(_file(fits.PrimaryHDU(), fits.ImageHDU(WEIGHT, name="G"), image))


def test_the_image_named_sci_is_shown_even_behind_a_primary_image() -> None:
    assert _shows_sky(_file(fits.PrimaryHDU(WEIGHT), fits.ImageHDU(SKY, name="sci")))


def test_a_file_with_nothing_but_a_mask_shows_it() -> None:
    assert _rendered(_file(fits.PrimaryHDU(), fits.ImageHDU(WEIGHT, name="MASK"))).max() == 255


@pytest.mark.parametrize("order", ["SCI,0", "0,SCI", "I,R", "2", "r"])
def test_the_first_hdu_of_the_order_that_exists(order: str) -> None:
    named = _file(fits.PrimaryHDU(), fits.ImageHDU(WEIGHT), fits.ImageHDU(SKY, name="SCI"))
    single = _file(fits.PrimaryHDU(SKY))
    bands = _file(fits.PrimaryHDU(), fits.ImageHDU(WEIGHT, name="G"), fits.ImageHDU(SKY, name="R"))
    assert [
        name
        for name, data in (("named", named), ("single", single), ("bands", bands))
        if _can_show(data, order)
    ] == {
        "SCI,0": ["named", "single"],
        "0,SCI": ["named", "single"],
        "I,R": ["bands"],
        "2": ["named", "bands"],
        "r": ["bands"],
    }[order]


def _can_show(data: bytes, order: str) -> bool:
    try:
        return _shows_sky(data, hdu=order)
    except UnreadableImage:
        return False


def test_the_reason_names_the_order_of_the_card() -> None:
    assert _reason(_file(fits.PrimaryHDU(SKY)), hdu="SCI,5") == "no FITS image SCI or 5"


def test_the_order_in_a_card_and_in_a_location() -> None:
    settings = FitsSettings.model_validate({"hdu": ["SCI", 0]})
    assert settings.hdus == ["SCI", 0]
    path = locations.join_location("a.fits", settings.fragment())
    assert FitsSettings.model_validate(locations.split_location(path)[1]) == settings
    assert FitsSettings(hdu="3").hdus == [3]
    assert FitsSettings().hdus == []
    for wrong in ([], ["SCI", ""], "", "SCI,", 1.5, {"SCI": 0}):
        with pytest.raises(ValidationError):
            FitsSettings.model_validate({"hdu": wrong})


def test_compressed_images_and_cubes_by_name() -> None:
    compressed = fits.CompImageHDU(SKY.astype(np.int32), name="SCI", compression_type="RICE_1")
    assert _shows_sky(_file(fits.PrimaryHDU(), fits.ImageHDU(WEIGHT), compressed), hdu="SCI,0")
    cube = fits.ImageHDU(np.stack([SKY, WEIGHT]), name="CUBE")
    assert _shows_sky(_file(fits.PrimaryHDU(WEIGHT), cube), hdu="CUBE")


def test_the_description_names_hdu_and_stretch() -> None:
    data = _file(fits.PrimaryHDU(), fits.ImageHDU(WEIGHT, name="WHT"), fits.ImageHDU(SKY, name="SCI"))
    described = "HDU 2 (SCI) of 2 images; asinh between percentiles 0.5 and 99.5, softening 0.1"
    assert describe_fits(data, "a.fits", {}, MAX_PIXELS) == described
    keys = {"hdu": "9,1", "stretch": "zscale"}
    assert describe_fits(data, "a.fits", keys, MAX_PIXELS) == "HDU 1 (WHT) of 2 images; zscale"
    single = _file(fits.PrimaryHDU(np.stack([SKY] * 3)))
    keys = {"bands": "2,1,0", "stretch": "linear", "percentiles": "1,99"}
    assert describe_fits(single, "a.fits", keys, MAX_PIXELS) == (
        "HDU 0, planes 2, 1, 0; linear between percentiles 1 and 99"
    )


def test_a_corpus_with_one_empty_file_is_read_and_counts_it(tmp_path: Path) -> None:
    from domainclip.data.images.inspection import inspect_image

    (tmp_path / "a.fits").write_bytes(_axes(8, 0, 0))
    inspected = inspect_image({"path": str(tmp_path / "a.fits"), "bytes": None})
    assert inspected["reason"] == b"no image in this FITS file"
