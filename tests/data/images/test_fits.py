"""Rendering of FITS images against values worked by hand, and against astropy."""

from __future__ import annotations

import builtins
import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from domainclip.data.files import locations
from domainclip.data.images.decode import decode_image
from domainclip.data.images.fits_settings import FitsSettings, is_fits
from domainclip.errors import UnreadableImage

fits = pytest.importorskip("astropy.io.fits", reason="needs the astro extra")

LINEAR = {"stretch": "linear", "percentiles": "0,100"}
RAMP = np.array([[0, 1], [2, 4]], np.float32)  # the first row is at the bottom of the image


def _file(*hdus: Any) -> bytes:
    stream = io.BytesIO()
    fits.HDUList(list(hdus)).writeto(stream, output_verify="ignore")
    return stream.getvalue()


def _rendered(data: bytes, **place: str) -> np.ndarray:
    return np.asarray(decode_image({"path": locations.join_location("a.fits", place), "bytes": data}))


def _grey(data: bytes, **place: str) -> list[list[int]]:
    rendered = _rendered(data, **place)
    assert (rendered == rendered[..., :1]).all()
    grey: list[list[int]] = rendered[..., 0].tolist()
    return grey


def _reason(data: bytes, path: str = "a.fits", **options: int) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode_image({"path": path, "bytes": data}, **options)
    return caught.value.reason


@pytest.mark.parametrize(
    ("stretch", "half", "quarter"),
    [
        ("linear", 128, 64),
        ("asinh", 197, 140),  # asinh(5)/asinh(10) = 0.7713, asinh(2.5)/asinh(10) = 0.5494
        ("log", 229, 204),  # ln(501)/ln(1001) = 0.8998, ln(251)/ln(1001) = 0.7998
        ("sqrt", 180, 128),
    ],
)
def test_each_stretch_by_hand_and_rows_from_the_bottom(stretch: str, half: int, quarter: int) -> None:
    rendered = _grey(_file(fits.PrimaryHDU(RAMP)), stretch=stretch, percentiles="0,100")
    assert rendered == [[half, 255], [0, quarter]]


def test_the_softening_of_asinh() -> None:
    rendered = _grey(_file(fits.PrimaryHDU(RAMP)), softening="1000", percentiles="0,100")
    assert rendered == [[128, 255], [0, 64]]  # with this softening it is linear


def test_percentiles_cut_a_hot_pixel() -> None:
    values = np.arange(1000, dtype=np.float32).reshape(25, 40)
    values[0, 0] = 1e9
    grey = np.asarray(_grey(_file(fits.PrimaryHDU(values)), stretch="linear", percentiles="0,99.9"))
    # Positions 0 … 999: the last but one percent lies at 998.001, between 999 and the hot pixel.
    assert grey[-1, 0] == 255
    assert len(np.unique(grey)) == 2
    cut = np.asarray(_grey(_file(fits.PrimaryHDU(values)), stretch="linear", percentiles="0,99"))
    assert len(np.unique(cut)) == 256


def test_zscale_equals_astropys() -> None:
    from astropy.visualization import ZScaleInterval

    values = np.random.default_rng(0).normal(100, 5, (60, 70)).astype(np.float32)
    values[20:24, 30:34] = 5000
    low, high = ZScaleInterval().get_limits(values)
    expected = np.rint(np.clip((np.flipud(values).astype(float) - low) / (high - low), 0, 1) * 255)
    assert np.abs(np.asarray(_grey(_file(fits.PrimaryHDU(values)), stretch="zscale")) - expected).max() <= 1
    assert high < 200  # the control: the bright source does not determine the limits


def test_nan_is_black_and_does_not_affect_the_limits() -> None:
    values = np.array([[np.nan, 10], [20, np.inf]], np.float32)
    assert _grey(_file(fits.PrimaryHDU(values)), **LINEAR) == [[255, 255], [0, 0]]
    assert _grey(_file(fits.PrimaryHDU(np.full((2, 2), 7.0, np.float32)))) == [[0, 0], [0, 0]]


@pytest.mark.parametrize("blank", [-1, 0, 3])
def test_scaled_integers_and_blank(blank: int) -> None:
    raw = np.array([[1, 2], [blank, 5]], np.int16)
    hdu = fits.PrimaryHDU(raw)
    data = bytearray(_file(hdu))
    cards = {b"END": f"BSCALE  = {2.5:>20}", b"": f"BZERO   = {10.0:>20}", b" ": f"BLANK   = {blank:>20}"}
    end = bytes(data[:2880]).index(b"END" + b" " * 77)
    for number, card in enumerate(cards.values()):
        data[end + 80 * number : end + 80 * (number + 1)] = card.ljust(80).encode()
    data[end + 240 : end + 320] = b"END".ljust(80)
    # 10 + 2.5 · {1, 2, 5} = 12.5, 15, 22.5: of the range of 10, shares 0, 0.25 and 1; BLANK is black.
    assert _grey(bytes(data), **LINEAR) == [[0, 255], [0, 64]]


def test_unsigned_sixteen_bits() -> None:
    values = np.array([[0, 16384], [32768, 65535]], np.uint16)  # stored with BZERO = 32768
    assert _grey(_file(fits.PrimaryHDU(values)), **LINEAR) == [[128, 255], [0, 64]]


def test_the_first_image_or_the_named_one() -> None:
    other = fits.ImageHDU(RAMP.T, name="R")
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.zeros(3))])
    data = _file(fits.PrimaryHDU(), table, fits.ImageHDU(RAMP, name="G"), other)
    assert _grey(data, **LINEAR) == _grey(data, hdu="2", **LINEAR) == [[128, 255], [0, 64]]
    assert _grey(data, hdu="r", **LINEAR) == _grey(data, hdu="3", **LINEAR) == [[64, 255], [0, 128]]
    assert _reason(data, "a.fits#hdu=WHT") == "no FITS image WHT"
    assert _reason(_file(fits.PrimaryHDU(), table)) == "no image in this FITS file"


def test_three_planes_of_a_cube() -> None:
    cube = np.stack([RAMP, RAMP * 0 + 4, RAMP.T]).astype(np.float32)
    cube[1, 0, 0] = 0
    data = _file(fits.PrimaryHDU(cube))
    assert _grey(data, **LINEAR) == [[128, 255], [0, 64]]  # without bands: the first plane
    rendered = _rendered(data, bands="2,1,0", **LINEAR)
    assert rendered.tolist() == [[[64, 255, 128], [255, 255, 255]], [[0, 0, 0], [128, 255, 64]]]
    assert _reason(data, "a.fits#bands=0,1,7") == "no plane 7 in this FITS image"


def test_equal_bands_give_the_grey_image() -> None:
    values = np.random.default_rng(0).gamma(1, 50, (20, 30)).astype(np.float32)
    data = _file(fits.PrimaryHDU(np.stack([values] * 3)))
    # Equal above the black level only: limits of the clipped intensity differ from those of the plane.
    assert _grey(data, bands="0,1,2", percentiles="0,100") == _grey(data, percentiles="0,100")


def test_asinh_of_three_bands_is_lupton_and_keeps_colour() -> None:
    from astropy.visualization import make_lupton_rgb

    planes = np.random.default_rng(1).gamma(1, 50, (3, 40, 50)).astype(np.float32)
    planes -= planes.min(axis=(1, 2), keepdims=True)
    rendered = _rendered(
        _file(fits.PrimaryHDU(planes)),
        bands="0,1,2",
        percentiles="0,100",
        softening=str(1 / np.sinh(10 * np.arcsinh(0.8))),
    )
    # The same curve: asinh(Q I / stretch) · 0.1 / asinh(0.1 Q) with Q = 8, white at the brightest intensity.
    bright = float(planes.mean(axis=0).max())
    theirs = make_lupton_rgb(*planes, minimum=0, stretch=8 * bright / np.sinh(10 * np.arcsinh(0.8)), Q=8)
    assert (
        np.abs(rendered.astype(int) - np.flipud(theirs).astype(int)).max() <= 1
    )  # astropy truncates, we round
    assert rendered.std() > 20


def test_bands_in_hdus() -> None:
    hdus = [fits.ImageHDU(RAMP * k, name=name) for k, name in ((1, "I"), (1, "R"), (0, "G"))]
    rendered = _rendered(_file(fits.PrimaryHDU(), *hdus), bands="I,R,G", **LINEAR)
    assert rendered[0].tolist() == [[128, 128, 0], [255, 255, 0]]


def test_bands_in_files(tmp_path: Path) -> None:
    for name, values in (("i", RAMP), ("r", RAMP.T), ("g", RAMP * 0)):
        (tmp_path / f"ngc1_{name}.fits").write_bytes(_file(fits.PrimaryHDU(values)))
    bands = {"bands": "{stem}_i.fits,{stem}_r.fits,{stem}_g.fits", **LINEAR}
    for listed in ("ngc1_i.fits", "ngc1_g.fits"):  # the table may name either of them
        file = tmp_path / listed
        rendered = np.asarray(
            decode_image({"path": locations.join_location(str(file), bands), "bytes": None})
        )
        assert rendered.tolist() == [[[128, 64, 0], [255, 255, 0]], [[0, 0, 0], [64, 128, 0]]]
    (tmp_path / "ngc1_r.fits").unlink()
    with pytest.raises(UnreadableImage) as caught:
        decode_image({"path": locations.join_location(str(file), bands), "bytes": None})
    assert caught.value.reason == "no FITS file of band {stem}_r.fits"


def test_a_band_behind_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.fits").write_bytes(_file(fits.PrimaryHDU(RAMP)))
    (tmp_path / "in" / "a.fits").write_bytes(_file(fits.PrimaryHDU(RAMP)))
    (tmp_path / "in" / "a_r.fits").symlink_to(tmp_path / "secret.fits")
    path = locations.join_location(str(tmp_path / "in" / "a.fits"), {"bands": "0,{stem}_r.fits,0"})
    with pytest.raises(UnreadableImage, match="no FITS file of band"):
        decode_image({"path": path, "bytes": None})


def test_bands_of_different_sizes() -> None:
    hdus = [fits.ImageHDU(values, name=name) for values, name in ((RAMP, "I"), (RAMP[:1], "R"))]
    assert _reason(_file(fits.PrimaryHDU(), *hdus), "a.fits#bands=I,R,I") == "FITS bands of different sizes"


def test_compressed_files() -> None:
    values = np.random.default_rng(0).integers(0, 1000, (32, 40)).astype(np.int32)
    plain = _grey(_file(fits.PrimaryHDU(values)))
    assert _grey(_file(fits.PrimaryHDU(), fits.CompImageHDU(values, compression_type="RICE_1"))) == plain
    assert _grey(gzip.compress(_file(fits.PrimaryHDU(values)))) == plain
    assert is_fits(gzip.compress(_file(fits.PrimaryHDU(values))))
    assert not is_fits(gzip.compress(b"hello"))
    assert not is_fits(b"\x1f\x8bhello")


def test_bombs_and_broken_files() -> None:
    data = _file(fits.PrimaryHDU(np.zeros((100, 100), np.uint8)))
    assert _reason(data, max_pixels=9_999) == "more than 9999 pixels"
    assert _reason(gzip.compress(data + b"\0" * 2_000_000), max_pixels=10_000) == "decompression bomb"
    header = (
        data[:2880]
        .replace(b"100", b"9" * 3)
        .replace(b"NAXIS2  =                  999", b"NAXIS2  =             99999999")
    )
    assert _reason(header) == "more than 89478485 pixels"
    assert _reason(data[:5000]).startswith(("broken image", "truncated"))


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("stretch=cube", "no such FITS setting: stretch"),
        ("frame=1", "no such FITS setting: frame"),
        ("bands=1,2", "no such FITS setting: bands"),
        ("bands=../a.fits,1,2", "no such FITS setting: bands"),
        ("percentiles=99,1", "no such FITS setting: percentiles"),
    ],
)
def test_wrong_settings_in_a_location(place: str, reason: str) -> None:
    assert _reason(_file(fits.PrimaryHDU(RAMP)), f"a.fits#{place}") == reason


@pytest.mark.parametrize(
    "card",
    ["NAXIS   =           2147483647", "ZNAXIS  =          99999999999", "TFIELDS =                 1000"],
)
def test_more_axes_or_columns_than_the_standard_allows_end_at_once(card: str) -> None:
    data = _file(fits.PrimaryHDU(), fits.CompImageHDU(RAMP.astype(np.int16)))
    place = data.index(f"{card[:8]}=".encode(), 2880)
    data = data[:place] + card.ljust(80).encode() + data[place + 80 :]
    assert _reason(data) == "FITS header with more than 999 axes or columns"


def test_settings_survive_a_round_trip_through_a_location() -> None:
    assert FitsSettings().fragment() == {}
    how = FitsSettings(
        stretch="log", percentiles=(1, 99.9), hdu="SCI", bands=["a", 1, "{stem}_c.fits"], softening=0.02
    )
    path = locations.join_location("x.fits", how.fragment())
    assert FitsSettings.model_validate(locations.split_location(path)[1]) == how


def test_without_astropy_the_reason_contains_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, real = _file(fits.PrimaryHDU(RAMP)), builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.startswith("astropy"):
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert _reason(data) == "FITS needs astropy: pip install domainclip[astro]"


def test_a_fits_file_with_the_suffix_of_another_format(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(_file(fits.PrimaryHDU(RAMP)))
    assert isinstance(decode_image({"path": str(file), "bytes": None}), Image.Image)
