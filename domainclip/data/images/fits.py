"""Rendering of FITS images: one plane in grey, or three as red, green and blue [FITS standard 4.0].

Physical values (BSCALE, BZERO; NaN and BLANK are black) -> limits -> stretch -> 8 bits -> flipped vertically,
since FITS counts rows from the bottom.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from domainclip.data.files import locations
from domainclip.errors import UnreadableImage

if TYPE_CHECKING:
    from astropy.io.fits import HDUList

_MAGIC = b"SIMPLE  ="
_GZIP_MAGIC = b"\x1f\x8b"
# Bytes that are always unzipped, and unzipped bytes that are allowed for each zipped one.
_MIN_UNZIPPED, _MAX_COMPRESSION = 2**24, 100
HEAD_BYTES = 4096  # enough to recognise a FITS file, zipped or not
_TAR_KEYS = ("offset", "size")  # of a fragment: where the file begins in a tar, not how it is rendered


class FitsSettings(BaseModel):
    """Rendering of a FITS file, from `images.fits` of a card and from the fragment of a location."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # asinh shows faint arms and bright cores at once [arXiv:astro-ph/0312483]; zscale is linear between the
    # limits of IRAF's algorithm.
    stretch: Literal["asinh", "linear", "log", "sqrt", "zscale"] = "asinh"
    percentiles: tuple[float, float] = (0.5, 99.5)  # of the finite values: black, white; unused by zscale
    softening: float = Field(default=0.1, gt=0)  # of asinh, as a share of white: linear below
    hdu: int | str | None = None  # number or EXTNAME; null: the first with an image
    # Red, green and blue: planes of a cube, names of HDUs, or files in the same folder, as "{stem}_i.fits".
    bands: list[int | str] = []

    @field_validator("bands", mode="before")
    @classmethod
    def _none_or_three(cls, value: Any) -> Any:
        bands = value.split(",") if isinstance(value, str) else value
        if isinstance(bands, list):
            bands = [int(band) if str(band).isdecimal() else band for band in bands]
            if len(bands) not in (0, 3):
                raise ValueError("name three bands, for red, green and blue, or none")
            if any(isinstance(band, str) and ("/" in band or "\\" in band) for band in bands):
                raise ValueError("a band's file must be in the folder of the first: leave out the folder")
        return bands

    @field_validator("percentiles", mode="before")
    @classmethod
    def _two(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value

    @field_validator("percentiles")
    @classmethod
    def _in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] < value[1] <= 100:
            raise ValueError("two numbers from 0 to 100, the lower first")
        return value

    @field_validator("hdu", mode="before")
    @classmethod
    def _number_or_name(cls, value: Any) -> Any:
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    def fragment(self) -> dict[str, str]:
        """The settings that differ from the defaults, as keys of a location."""
        changed = self.model_dump(exclude_defaults=True).items()
        return {k: ",".join(map(str, v)) if isinstance(v, (list, tuple)) else str(v) for k, v in changed}


def is_fits(data: bytes) -> bool:
    """Whether bytes begin like a FITS file, gzip-compressed or not."""
    if data[:2] == _GZIP_MAGIC:
        try:
            data = zlib.decompressobj(31).decompress(data[:HEAD_BYTES], len(_MAGIC))
        except zlib.error:
            return False
    return data.startswith(_MAGIC)


def with_fits_settings(image: dict[str, Any], settings: FitsSettings) -> dict[str, Any]:
    """A FITS image of a corpus with the settings in its location; any other image unchanged."""
    fragment = settings.fragment()
    if not fragment:
        return image
    # An image given as bytes needs a name that can carry the fragment.
    file, own_fragment = locations.split_location(
        image["path"] or ("" if image["bytes"] is None else "image")
    )
    head = _read_head(file, own_fragment) if image["bytes"] is None else image["bytes"][:HEAD_BYTES]
    if not is_fits(head):
        return image
    # The settings of a row override those of the card.
    return {**image, "path": locations.join_location(file, fragment | own_fragment)}


def _read_head(file: str, fragment: Mapping[str, str]) -> bytes:
    try:
        with open(file, "rb") as stream:
            stream.seek(int(fragment.get("offset", 0)))
            return stream.read(HEAD_BYTES)
    except (OSError, ValueError):  # missing files are reported with all others
        return b""


def render_fits(data: bytes, name: str, fragment: Mapping[str, str], max_pixels: int) -> Image.Image:
    """The image as RGB, with the settings of `fragment`; `name` is the file, whose folder holds other bands.

    Raises: UnreadableImage with the reason; without astropy, with the command that installs it.
    """
    try:
        import astropy.io.fits  # noqa: F401
    except ImportError:
        raise UnreadableImage(name, "FITS needs astropy: pip install domainclip[astro]") from None
    try:
        settings = FitsSettings.model_validate({k: fragment[k] for k in fragment if k not in _TAR_KEYS})
    except ValidationError as error:
        key = error.errors(include_url=False)[0]["loc"][0]
        raise UnreadableImage(name, f"no such FITS setting: {key}") from None
    planes = list(_read_planes(data, name, settings, max_pixels))
    if len({plane.shape for plane in planes}) > 1:
        raise UnreadableImage(name, "FITS bands of different sizes")
    if len(planes) == 1:
        levels = _stretch(planes[0], settings)
    elif settings.stretch == "asinh":
        levels = _stretch_colour(planes, settings)
    else:
        levels = np.dstack([_stretch(plane, settings) for plane in planes])
    return Image.fromarray(np.rint(np.flipud(levels) * 255).astype(np.uint8)).convert("RGB")


def _read_planes(data: bytes, name: str, settings: FitsSettings, max_pixels: int) -> Iterator[np.ndarray]:
    with _open_hdus(data, name, max_pixels) as hdus:
        for band in settings.bands or [0]:
            if isinstance(band, int):
                yield _read_plane(hdus, settings.hdu, band, name, max_pixels)
            elif "{stem}" not in band:
                yield _read_plane(hdus, band, 0, name, max_pixels)
            else:
                band_data = _read_band_file(name, band, settings.bands)
                with _open_hdus(band_data, name, max_pixels) as band_hdus:
                    yield _read_plane(band_hdus, settings.hdu, 0, name, max_pixels)


def _open_hdus(data: bytes, name: str, max_pixels: int) -> HDUList:
    from astropy.io import fits

    if data[:2] == _GZIP_MAGIC:
        decompressor = zlib.decompressobj(31)
        # 64 bits a pixel, and the headers; a real image does not shrink a hundredfold.
        max_bytes = min(8 * max_pixels + 2**20, max(_MIN_UNZIPPED, _MAX_COMPRESSION * len(data)))
        data = decompressor.decompress(data, max_bytes)
        if decompressor.unconsumed_tail:
            raise UnreadableImage(name, "decompression bomb")
    return fits.open(io.BytesIO(data), memmap=False)


def band_files(name: str, fragment: Mapping[str, str]) -> list[Path]:
    """The further files that the bands of an image are read from, existing or not; mostly none."""
    if "{stem}" not in fragment.get("bands", ""):
        return []
    bands = fragment["bands"].split(",")
    return [_band_file(name, band, bands) for band in bands if "{stem}" in band]


def _band_file(name: str, band: str, bands: Sequence[int | str]) -> Path:
    """The file of a band: `name` may be the file of any band, or just the stem of all of them."""
    file = Path(name)
    for pattern in map(str, bands):
        before, has_stem, after = pattern.partition("{stem}")
        if has_stem and (match := re.fullmatch(f"{re.escape(before)}(.+){re.escape(after)}", file.name)):
            return file.with_name(band.replace("{stem}", match[1]))
    return file.with_name(band.replace("{stem}", file.stem))


def _read_band_file(name: str, band: str, bands: Sequence[int | str]) -> bytes:
    file = _band_file(name, band, bands).resolve()
    # A link could lead out of the corpus.
    if file.parent != Path(name).resolve().parent or not file.is_file():
        raise UnreadableImage(name, f"no FITS file of band {band}")
    return file.read_bytes()


def _read_plane(
    hdus: HDUList, selected: int | str | None, index: int, name: str, max_pixels: int
) -> np.ndarray:
    """(rows, columns) float64 physical values, NaN where undefined."""
    hdu = next((hdu for number, hdu in enumerate(hdus) if _is_selected(hdu, number, selected)), None)
    if hdu is None:
        reason = "no image in this FITS file" if selected is None else f"no FITS image {selected}"
        raise UnreadableImage(name, reason)
    if hdu.shape[-1] * hdu.shape[-2] > max_pixels:
        raise UnreadableImage(name, f"more than {max_pixels} pixels")
    if index >= int(np.prod(hdu.shape[:-2])):
        raise UnreadableImage(name, f"no plane {index} in this FITS image")
    blank, zero = hdu.header.get("BLANK"), hdu.header.get("BZERO", 0)
    plane: np.ndarray = hdu.section[(*np.unravel_index(index, hdu.shape[:-2]), slice(None), slice(None))]
    values = plane.astype(np.float64)
    if blank == 0:  # astropy treats a BLANK of 0 as none
        values[values == zero] = np.nan
    return values


def _is_selected(hdu: Any, number: int, selected: int | str | None) -> bool:
    """Whether an HDU has the selected number, from 0, or name; None selects any image."""
    if not hdu.is_image or hdu.header.get("NAXIS", 0) < 2:
        return False
    # By the standard, names are compared without case.
    return selected is None or selected == number or str(selected).upper() == hdu.name.upper()


def _value_limits(values: np.ndarray, settings: FitsSettings) -> tuple[float, float]:
    """The values shown as black and as white."""
    from astropy.visualization import ZScaleInterval

    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 0.0
    if settings.stretch == "zscale":
        low, high = ZScaleInterval().get_limits(values)  # it samples by position and skips NaN itself
    else:
        low, high = np.percentile(finite, settings.percentiles)
    return float(low), float(high)


def _normalise(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Levels from 0, black, to 1, white; NaN is black."""
    if high <= low:
        return np.zeros(values.shape)
    return np.clip(np.nan_to_num((values - low) / (high - low), nan=0.0), 0, 1)


def _apply_curve(levels: np.ndarray, settings: FitsSettings) -> np.ndarray:
    from astropy import visualization as stretches

    curves: dict[str, Any] = {
        "asinh": stretches.AsinhStretch(settings.softening),
        "log": stretches.LogStretch(),
        "sqrt": stretches.SqrtStretch(),
    }
    return curves[settings.stretch](levels) if settings.stretch in curves else levels


def _stretch(values: np.ndarray, settings: FitsSettings) -> np.ndarray:
    return _apply_curve(_normalise(values, *_value_limits(values, settings)), settings)


def _stretch_colour(planes: list[np.ndarray], settings: FitsSettings) -> np.ndarray:
    """(rows, columns, 3) levels: only the intensity is stretched, so hues stay [arXiv:astro-ph/0312483].

    The black level of each band is subtracted. A pixel that would be brighter than white is scaled down in
    all bands, so that a bright core keeps its colour.
    """
    signal = [plane - _value_limits(plane, settings)[0] for plane in planes]
    signal = [np.clip(np.nan_to_num(band, nan=0.0, posinf=0.0), 0, None) for band in signal]
    intensity = np.mean(signal, axis=0)
    white = _value_limits(intensity, settings)[1]
    if white <= 0:
        return np.zeros((*intensity.shape, 3))
    # Not clipped at 1: a core must not become darker than its surroundings.
    factor = np.arcsinh(intensity / white / settings.softening) / np.arcsinh(1 / settings.softening)
    factor = np.divide(factor, intensity, out=np.zeros_like(factor), where=intensity > 0)
    colour = np.dstack([band * factor for band in signal])
    scaled: np.ndarray = colour / np.maximum(1, colour.max(axis=2, keepdims=True))
    return scaled
