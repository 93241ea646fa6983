"""The card's options for showing images that are not of 8-bit colours, in the location of each image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domainclip.config.strict_model import StrictModel
from domainclip.data.files import locations
from domainclip.data.images.bit_depth import BitDepthSettings
from domainclip.data.images.fits_settings import HEAD_BYTES, FitsSettings, is_fits


class ImageSettings(StrictModel):
    """Options for decoding images of some formats."""

    fits: FitsSettings = FitsSettings()  # how FITS files are shown
    bit_depth: BitDepthSettings = BitDepthSettings()  # of images of more than 8 bits, except DICOM and FITS


def with_settings(image: dict[str, Any], settings: ImageSettings) -> dict[str, Any]:
    """An image of a corpus with the settings of its format in its location; the defaults are not written."""
    of_fits, of_others = settings.fits.fragment(), settings.bit_depth.fragment()
    if not of_fits and not of_others:
        return image
    from domainclip.data.dicom.reading import is_dicom  # pydicom, half a second that a card need not cost

    # An image given as bytes needs a name that can carry the fragment.
    file, own_fragment = locations.split_location(
        image["path"] or ("" if image["bytes"] is None else "image")
    )
    head = _read_head(file, own_fragment) if image["bytes"] is None else image["bytes"][:HEAD_BYTES]
    fragment = of_fits if is_fits(head) else {} if is_dicom(head) else of_others
    if not head or not fragment:
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
