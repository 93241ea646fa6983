"""A FITS image as a picture: one plane in grey, or three as red, green and blue [FITS standard 4.0].

Physical values (BSCALE, BZERO; NaN and BLANK are black) -> limits -> stretch -> 8 bits -> turned over, since
FITS counts rows from the bottom.
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
_MIN_UNZIPPED, _MAX_COMPRESSION = (
    2**24,
    100,
)  # unzipped bytes that are always read, and those read of each zipped one
HEAD_BYTES = 4096  # so many bytes tell whether a file is FITS


class FitsSettings(BaseModel):
    """How a FITS file is shown; a card says it under `pictures.fits`, a path behind its `#`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # asinh keeps faint arms and bright cores alike [arXiv:astro-ph/0312483]; zscale is linear between the
    # limits that IRAF made usual for detectors.
    stretch: Literal["asinh", "linear", "log", "sqrt", "zscale"] = "asinh"
    percentiles: tuple[float, float] = (0.5, 99.5)  # of the finite values: black and white; not for zscale
    softening: float = Field(default=0.1, gt=0)  # of asinh: below this share of white it is linear
    hdu: int | str | None = None  # number or EXTNAME; null: the first that holds an image
    # Red, green and blue: planes of a cube, names of HDUs, or files beside this one as "{stem}_i.fits".
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
                raise ValueError("the file of a band lies beside the first, so its name has no folder")
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

    def place(self) -> dict[str, str]:
        """What differs from the defaults, for the path of a file."""
        said = self.model_dump(exclude_defaults=True).items()
        return {k: ",".join(map(str, v)) if isinstance(v, (list, tuple)) else str(v) for k, v in said}


def is_fits(data: bytes) -> bool:
    """Whether bytes are those of a FITS file, gzip-compressed or not."""
    if data[:2] == _GZIP_MAGIC:
        try:
            data = zlib.decompressobj(31).decompress(data[:HEAD_BYTES], len(_MAGIC))
        except zlib.error:
            return False
    return data.startswith(_MAGIC)


def with_fits_settings(image: dict[str, Any], how: FitsSettings) -> dict[str, Any]:
    """A FITS picture of a corpus with how it is shown behind its path; any other picture as it is."""
    said = how.place()
    if not said:
        return image
    # A picture that came as bytes needs a name to hang its settings on.
    file, inside = locations.split_location(image["path"] or ("" if image["bytes"] is None else "image"))
    begin = _read_head(file, inside) if image["bytes"] is None else image["bytes"][:HEAD_BYTES]
    # What a row says of its picture counts before what the card says of all.
    return {**image, "path": locations.join_location(file, said | inside)} if is_fits(begin) else image


def _read_head(file: str, inside: Mapping[str, str]) -> bytes:
    try:
        with open(file, "rb") as stream:
            stream.seek(int(inside.get("offset", 0)))
            return stream.read(HEAD_BYTES)
    except (OSError, ValueError):  # a file that is not there is told of with all others
        return b""


def render_fits(data: bytes, name: str, place: Mapping[str, str], max_pixels: int) -> Image.Image:
    """The picture as RGB, as `place` says; `name` is the file, beside which those of other bands lie.

    Raises: UnreadableImage with the reason; without astropy, with the line that installs it.
    """
    try:
        import astropy.io.fits  # noqa: F401
    except ImportError:
        raise UnreadableImage(name, "FITS needs astropy: pip install domainclip[astro]") from None
    try:
        # Where the file begins in a tar says nothing of how it is shown.
        how = FitsSettings.model_validate({key: place[key] for key in place if key not in ("offset", "size")})
    except ValidationError as error:
        key = error.errors(include_url=False)[0]["loc"][0]
        raise UnreadableImage(name, f"no such FITS setting: {key}") from None
    planes = list(_read_planes(data, name, how, max_pixels))
    if len({plane.shape for plane in planes}) > 1:
        raise UnreadableImage(name, "FITS bands of different sizes")
    if len(planes) == 1:
        shares = _stretch(planes[0], how)
    elif how.stretch == "asinh":
        shares = _stretch_colour(planes, how)
    else:
        shares = np.dstack([_stretch(plane, how) for plane in planes])
    return Image.fromarray(np.rint(np.flipud(shares) * 255).astype(np.uint8)).convert("RGB")


def _read_planes(data: bytes, name: str, how: FitsSettings, max_pixels: int) -> Iterator[np.ndarray]:
    with _open_hdus(data, name, max_pixels) as hdus:
        for band in how.bands or [0]:
            if isinstance(band, int):
                yield _read_plane(hdus, how.hdu, band, name, max_pixels)
            elif "{stem}" not in band:
                yield _read_plane(hdus, band, 0, name, max_pixels)
            else:
                beside = _read_band_file(name, band, how.bands)
                with _open_hdus(beside, name, max_pixels) as others:
                    yield _read_plane(others, how.hdu, 0, name, max_pixels)


def _open_hdus(data: bytes, name: str, max_pixels: int) -> HDUList:
    from astropy.io import fits

    if data[:2] == _GZIP_MAGIC:
        unzip = zlib.decompressobj(31)
        # 64 bits a pixel, and the headers; a picture that shows anything does not shrink a hundredfold.
        most = min(8 * max_pixels + 2**20, max(_MIN_UNZIPPED, _MAX_COMPRESSION * len(data)))
        data = unzip.decompress(data, most)
        if unzip.unconsumed_tail:
            raise UnreadableImage(name, "decompression bomb")
    return fits.open(io.BytesIO(data), memmap=False)


def band_files(name: str, place: Mapping[str, str]) -> list[Path]:
    """The files of other bands that a picture is made of besides its own, there or not; mostly none."""
    if "{stem}" not in place.get("bands", ""):
        return []
    bands = place["bands"].split(",")
    return [_band_file(name, band, bands) for band in bands if "{stem}" in band]


def _band_file(name: str, band: str, bands: Sequence[int | str]) -> Path:
    """The file of a band: the table may name the file of any, or a stem that none of them has."""
    file = Path(name)
    for other in map(str, bands):
        before, found, after = other.partition("{stem}")
        if found and (same := re.fullmatch(f"{re.escape(before)}(.+){re.escape(after)}", file.name)):
            return file.with_name(band.replace("{stem}", same[1]))
    return file.with_name(band.replace("{stem}", file.stem))


def _read_band_file(name: str, band: str, bands: Sequence[int | str]) -> bytes:
    wanted = _band_file(name, band, bands).resolve()
    # A link would lead out of the corpus.
    if wanted.parent != Path(name).resolve().parent or not wanted.is_file():
        raise UnreadableImage(name, f"no FITS file of band {band}")
    return wanted.read_bytes()


def _read_plane(
    hdus: HDUList, wanted: int | str | None, index: int, name: str, max_pixels: int
) -> np.ndarray:
    """(rows, columns) float64 physical values, NaN where there are none."""
    hdu = next((hdu for number, hdu in enumerate(hdus) if _is_selected(hdu, number, wanted)), None)
    if hdu is None:
        said = "no image in this FITS file" if wanted is None else f"no FITS image {wanted}"
        raise UnreadableImage(name, said)
    if hdu.shape[-1] * hdu.shape[-2] > max_pixels:
        raise UnreadableImage(name, f"more than {max_pixels} pixels")
    if index >= int(np.prod(hdu.shape[:-2])):
        raise UnreadableImage(name, f"no plane {index} in this FITS image")
    blank, zero = hdu.header.get("BLANK"), hdu.header.get("BZERO", 0)
    plane: np.ndarray = hdu.section[(*np.unravel_index(index, hdu.shape[:-2]), slice(None), slice(None))]
    values = plane.astype(np.float64)
    if blank == 0:  # astropy takes this one for none at all
        values[values == zero] = np.nan
    return values


def _is_selected(hdu: Any, number: int, wanted: int | str | None) -> bool:
    """Whether this is the HDU by its number, the primary as 0, or by its name, or the first image."""
    if not hdu.is_image or hdu.header.get("NAXIS", 0) < 2:
        return False
    # Names are compared as the standard says, without case.
    return wanted is None or wanted == number or str(wanted).upper() == hdu.name.upper()


def _value_limits(values: np.ndarray, how: FitsSettings) -> tuple[float, float]:
    from astropy.visualization import ZScaleInterval

    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 0.0
    if how.stretch == "zscale":
        low, high = ZScaleInterval().get_limits(values)  # it samples by place, and skips the rest itself
    else:
        low, high = np.percentile(finite, how.percentiles)
    return float(low), float(high)


def _normalise(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """From 0, black, to 1, white; what is no number is black."""
    if high <= low:
        return np.zeros(values.shape)
    return np.clip(np.nan_to_num((values - low) / (high - low), nan=0.0), 0, 1)


def _apply_curve(shares: np.ndarray, how: FitsSettings) -> np.ndarray:
    from astropy import visualization as stretches

    curves: dict[str, Any] = {
        "asinh": stretches.AsinhStretch(how.softening),
        "log": stretches.LogStretch(),
        "sqrt": stretches.SqrtStretch(),
    }
    return curves[how.stretch](shares) if how.stretch in curves else shares


def _stretch(values: np.ndarray, how: FitsSettings) -> np.ndarray:
    return _apply_curve(_normalise(values, *_value_limits(values, how)), how)


def _stretch_colour(planes: list[np.ndarray], how: FitsSettings) -> np.ndarray:
    """Bands with the colour of each pixel kept: the intensity is stretched [arXiv:astro-ph/0312483].

    Each band is taken above its own black level. What would be brighter than white is scaled back as a
    whole, so that a bright core keeps its colour.
    """
    above = [plane - _value_limits(plane, how)[0] for plane in planes]
    above = [np.clip(np.nan_to_num(band, nan=0.0, posinf=0.0), 0, None) for band in above]
    intensity = np.mean(above, axis=0)
    high = _value_limits(intensity, how)[1]
    if high <= 0:
        return np.zeros((*intensity.shape, 3))
    shares = intensity / high
    # Not clipped at 1, where the curve goes on: a core must not fall back behind its surroundings.
    factor = np.arcsinh(shares / how.softening) / np.arcsinh(1 / how.softening)
    factor = np.divide(factor, intensity, out=np.zeros_like(factor), where=intensity > 0)
    colour = np.dstack([band * factor for band in above])
    scaled: np.ndarray = colour / np.maximum(1, colour.max(axis=2, keepdims=True))
    return scaled
