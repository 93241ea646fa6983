"""Decoders: an image of each format is written and read as a run reads it."""

from __future__ import annotations

import io
from importlib.util import find_spec

import numpy as np
from PIL import Image
from pydicom import uid

from domainclip.data.dicom.decoders import find_plugin
from domainclip.data.images.decode import decode_image
from domainclip.pipelines.doctor.check import Check

_FORMATS = {"JPEG": "RGB", "PNG": "RGB", "WEBP": "RGB", "TIFF": "RGB", "GIF": "P", "BMP": "RGB"}
_SYNTAXES = {
    "JPEG": uid.JPEGBaseline8Bit,
    "JPEG Extended": uid.JPEGExtended12Bit,
    "JPEG Lossless": uid.JPEGLosslessSV1,
    "JPEG-LS": uid.JPEGLSLossless,
    "JPEG 2000": uid.JPEG2000Lossless,
    "HTJ2K": uid.HTJ2KLossless,
    "RLE": uid.RLELossless,
}
# Packages that only some corpora need: the extra, and for what.
_OPTIONAL = {
    "fits": ("astropy", "astro", "FITS files"),
    "excel": ("openpyxl", "excel", ".xlsx tables"),
}


def decoder_checks() -> list[Check]:
    """Common image formats, the transfer syntaxes of DICOM, FITS and Excel."""
    optional = [_optional_check(name, *about) for name, about in _OPTIONAL.items()]
    return [_image_check(), dicom_check(), *optional]


def _image_check() -> Check:
    broken = [name for name, mode in _FORMATS.items() if not _reads(name, mode)]
    if broken:
        text = f"cannot be decoded: {', '.join(broken)}"
        return Check("images", "fault", text, "pip install --force-reinstall pillow")
    return Check("images", "ok", f"{', '.join(_FORMATS)}, and PNG of 16 bits")


def _reads(name: str, mode: str) -> bool:
    """Whether an image survives, with its colour; of PNG also in 16 bits."""
    stream = io.BytesIO()
    try:
        Image.new("RGB", (8, 8), (200, 40, 40)).convert(mode).save(stream, name)
        colour = np.asarray(decode_image({"path": None, "bytes": stream.getvalue()}), dtype=int)[4, 4]
        if name == "PNG":
            stream = io.BytesIO()
            Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(stream, name)
            decode_image({"path": None, "bytes": stream.getvalue()})
    except Exception:  # of any kind: Pillow without a codec raises several
        return False
    return bool(abs(colour - (200, 40, 40)).max() < 12)


def dicom_check() -> Check:
    """The transfer syntaxes that can be decoded, and the command for the others."""
    missing = [name for name, syntax in _SYNTAXES.items() if not find_plugin(syntax)]
    if not missing:
        return Check("dicom", "ok", f"uncompressed, {', '.join(_SYNTAXES)}")
    text = f"cannot be decoded: {', '.join(missing)}"
    return Check("dicom", "warning", text, 'pip install "domainclip[dicom]", if the corpus has such files')


def _optional_check(name: str, package: str, extra: str, use: str) -> Check:
    if find_spec(package) is None:
        return Check(name, "ok", f"not installed; only {use} need it", f'pip install "domainclip[{extra}]"')
    return Check(name, "ok", f"{package} reads {use}")
