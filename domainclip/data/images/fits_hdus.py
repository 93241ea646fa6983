"""The image planes of a FITS file: which HDU is shown, and its physical values [FITS standard 4.0]."""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from domainclip.data.images.fits_settings import GZIP_MAGIC, TAR_KEYS, FitsSettings, band_file
from domainclip.errors import UnreadableImage

if TYPE_CHECKING:
    from astropy.io.fits import HDUList

# Bytes that are always unzipped, and unzipped bytes that are allowed for each zipped one.
_MIN_UNZIPPED, _MAX_COMPRESSION = 2**24, 100
# Words in the EXTNAMEs of planes that accompany an image: weights, errors, masks, exposure, sky, models.
_ACCOMPANYING_WORDS = (
    "WHT WEIGHT WEIGHTS WGT WTMAP ERR ERROR ERRORS UNC UNCERT UNCERTAINTY SIGMA STD STDDEV RMS VAR VARIANCE "
    "IVAR INVVAR DQ QUALITY FLAG FLAGS MASK BPM BADPIX CON CTX CONTEXT NSAMP SAMP TIME EXP EXPMAP EXPTIME "
    "EXPOSURE NEXP COV COVERAGE NOBS AREA BKG BACKGROUND SEG SEGM SEGMENTATION PSF"
)
_ACCOMPANYING = frozenset(_ACCOMPANYING_WORDS.split())
_SCIENCE = "SCI"
# The most axes of an image, and columns of a table: astropy reads a keyword for each that is stated.
_MAX_COUNT = 999
_COUNTS = re.compile(rb"(?:Z?NAXIS  ? ?|TFIELDS )= *(\d+)")


@dataclass(frozen=True)
class SelectedHdu:
    """The HDU of a file that is shown."""

    hdu: Any  # of astropy
    number: int  # from 0
    images: int  # of the file, this one included


def read_planes(data: bytes, name: str, settings: FitsSettings, max_pixels: int) -> Iterator[np.ndarray]:
    """The plane that is shown in grey, or the three of red, green and blue: (rows, columns) float64.

    Raises: UnreadableImage with the reason.
    """
    with open_hdus(data, name, max_pixels) as hdus:
        for band in settings.bands or [0]:
            if isinstance(band, int):
                yield _read_plane(select_hdu(hdus, settings.hdus, name).hdu, band, name, max_pixels)
            elif "{stem}" not in band:
                yield _read_plane(select_hdu(hdus, [band], name).hdu, 0, name, max_pixels)
            else:
                band_data = _read_band_file(name, band, settings.bands)
                with open_hdus(band_data, name, max_pixels) as band_hdus:
                    hdu = select_hdu(band_hdus, settings.hdus, name).hdu
                    yield _read_plane(hdu, 0, name, max_pixels)


def read_settings(name: str, fragment: Mapping[str, str]) -> FitsSettings:
    """The settings in a location.

    Raises: UnreadableImage naming a wrong key; without astropy, with the command that installs it.
    """
    from pydantic import ValidationError

    try:
        import astropy.io.fits  # noqa: F401
    except ImportError:
        raise UnreadableImage(name, "FITS needs astropy: pip install domainclip[astro]") from None
    try:
        return FitsSettings.model_validate({k: fragment[k] for k in fragment if k not in TAR_KEYS})
    except ValidationError as error:
        key = error.errors(include_url=False)[0]["loc"][0]
        raise UnreadableImage(name, f"no such FITS setting: {key}") from None


def open_hdus(data: bytes, name: str, max_pixels: int) -> HDUList:
    """The HDUs of a file, zipped or not.

    Raises: UnreadableImage for a decompression bomb, and for more axes or columns than the standard allows.
    """
    from astropy.io import fits

    if data[:2] == GZIP_MAGIC:
        decompressor = zlib.decompressobj(31)
        # 64 bits a pixel, and the headers; a real image does not shrink a hundredfold.
        max_bytes = min(8 * max_pixels + 2**20, max(_MIN_UNZIPPED, _MAX_COMPRESSION * len(data)))
        data = decompressor.decompress(data, max_bytes)
        if decompressor.unconsumed_tail:
            raise UnreadableImage(name, "decompression bomb")
    if any(int(count[1]) > _MAX_COUNT for count in _COUNTS.finditer(data)):
        raise UnreadableImage(name, f"FITS header with more than {_MAX_COUNT} axes or columns")
    return fits.open(io.BytesIO(data), memmap=False)


def select_hdu(hdus: HDUList, order: Sequence[int | str], name: str) -> SelectedHdu:
    """The first HDU of `order` that exists and has an image of at least one pixel.

    Without an order: the one named SCI, else the first that accompanies no other image, else the first.

    Raises: UnreadableImage if there is none.
    """
    images = {number: hdu for number, hdu in enumerate(_each_hdu(hdus, name)) if _has_pixels(hdu)}
    if not images:
        raise UnreadableImage(name, "no image in this FITS file")
    if order:
        matches = (
            number for wanted in order for number in images if _matches(images[number], number, wanted)
        )
        selected = next(matches, None)
        if selected is None:
            raise UnreadableImage(name, f"no FITS image {' or '.join(map(str, order))}")
    else:
        selected = min(images, key=lambda number: (_rank(images[number].name), number))
    return SelectedHdu(images[selected], selected, len(images))


def count_images(data: bytes, name: str, max_pixels: int) -> int:
    """The number of images of at least one pixel in a file that can be read."""
    with warnings.catch_warnings(), open_hdus(data, name, max_pixels) as hdus:
        warnings.simplefilter("ignore")
        return sum(_has_pixels(hdu) for hdu in _each_hdu(hdus, name))


def _each_hdu(hdus: HDUList, name: str) -> Iterator[Any]:
    """The HDUs in order.

    Raises: UnreadableImage after one of negative size: astropy would read the same header again, for ever.
    """
    for hdu in hdus:
        if hdu.size < 0 or (hdu.is_image and min(hdu.shape, default=0) < 0):
            raise UnreadableImage(name, "FITS header with a negative size")
        yield hdu


def _has_pixels(hdu: Any) -> bool:
    """Whether an HDU is an image with at least one pixel; exports of empty fields have none."""
    return bool(hdu.is_image and len(hdu.shape) >= 2 and 0 not in hdu.shape)


def _matches(hdu: Any, number: int, wanted: int | str) -> bool:
    # By the standard, names are compared without case.
    return wanted == number or str(wanted).upper() == hdu.name.upper()


def _rank(name: str) -> int:
    """0 for the image of an observation, 2 for a plane that accompanies one."""
    if name.upper() == _SCIENCE:
        return 0
    return 2 if _ACCOMPANYING.intersection(re.findall("[A-Z]+", name.upper())) else 1


def _read_band_file(name: str, band: str, bands: Sequence[int | str]) -> bytes:
    file = band_file(name, band, bands).resolve()
    # A link could lead out of the corpus.
    if file.parent != Path(name).resolve().parent or not file.is_file():
        raise UnreadableImage(name, f"no FITS file of band {band}")
    return file.read_bytes()


def _read_plane(hdu: Any, index: int, name: str, max_pixels: int) -> np.ndarray:
    """(rows, columns) float64 physical values, NaN where undefined."""
    if hdu.shape[-1] * hdu.shape[-2] > max_pixels:
        raise UnreadableImage(name, f"more than {max_pixels} pixels")
    if index >= int(np.prod(hdu.shape[:-2], dtype=object)):
        raise UnreadableImage(name, f"no plane {index} in this FITS image")
    blank, zero = hdu.header.get("BLANK"), hdu.header.get("BZERO", 0)
    plane: np.ndarray = hdu.section[(*np.unravel_index(index, hdu.shape[:-2]), slice(None), slice(None))]
    values: np.ndarray = plane.astype(np.float64)
    if blank == 0:  # astropy treats a BLANK of 0 as none
        values[values == zero] = np.nan
    if not np.isfinite(values).any():
        raise UnreadableImage(name, "no finite value in this FITS image")
    return values
