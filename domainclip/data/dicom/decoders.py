"""Which decoder reads which transfer syntax, and what to install when it is missing [DICOM PS3.5 §10, A.4].

Only libraries under permissive licences are asked, whatever else is installed: never pylibjpeg-libjpeg.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pydicom import uid
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from domainclip.data.dicom.reading import read_header
from domainclip.data.files import locations
from domainclip.errors import UnreadableImage

# A frame of raw deflate data [PS3.5 A.4.13]; zlib, of Python itself, reads it.
DEFLATED_FRAME = UID("1.2.840.10008.1.2.8.1")
_UNCOMPRESSED = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
_GDCM, _PILLOW, _OPENJPEG, _CHARLS = "gdcm", "pillow", "pylibjpeg", "pyjpegls"
# pydicom's names of its plugins, the best first. Pillow cannot read colour of more than 8 bits.
_PLUGINS: dict[UID, tuple[str, ...]] = {
    uid.RLELossless: ("pydicom",),
    uid.JPEGBaseline8Bit: (_PILLOW, _GDCM),
    uid.JPEGExtended12Bit: (_PILLOW, _GDCM),
    uid.JPEGLossless: (_GDCM,),
    uid.JPEGLosslessSV1: (_GDCM,),
    uid.JPEGLSLossless: (_CHARLS, _GDCM),
    uid.JPEGLSNearLossless: (_CHARLS, _GDCM),
    uid.JPEG2000Lossless: (_OPENJPEG, _GDCM, _PILLOW),
    uid.JPEG2000: (_OPENJPEG, _GDCM, _PILLOW),
    uid.HTJ2KLossless: (_OPENJPEG,),
    uid.HTJ2KLosslessRPCL: (_OPENJPEG,),
    uid.HTJ2K: (_OPENJPEG,),
}
_PACKAGES = {
    _GDCM: ("python-gdcm",),
    _PILLOW: ("pillow",),
    _OPENJPEG: ("pylibjpeg", "pylibjpeg-openjpeg"),
    _CHARLS: ("pyjpegls",),
}


@dataclass(frozen=True)
class DecoderRow:
    """One transfer syntax of a corpus: how many files have it, and what reads them."""

    syntax: str  # its name in the standard
    decoder: str  # what is used; "" when nothing reads it
    files: int
    install: str = ""  # the line that installs what is missing, or what else to do


def decoder_table(paths: Iterable[Path | str]) -> list[DecoderRow]:
    """A row for each transfer syntax of the image files, the most frequent first; no pixel is read.

    Files that are no DICOM images are passed over, and a file with several frames counts once.
    """
    seen: Counter[tuple[str, int]] = Counter()
    for path in dict.fromkeys(locations.resolve_location(str(path)) for path in paths):
        try:
            seen[syntax_key(read_header(Path(path), ["TransferSyntaxUID", "BitsStored"]))] += 1
        except UnreadableImage:
            continue
    return decoder_rows(seen)


def syntax_key(attributes: Mapping[str, str]) -> tuple[str, int]:
    """What decides on the decoder: the transfer syntax and, where it matters, the bits of a sample."""
    syntax, bits = attributes["TransferSyntaxUID"], attributes["BitsStored"]
    return syntax, int(bits) if syntax == uid.JPEGExtended12Bit and bits.isdigit() else 8


def decoder_rows(seen: Mapping[tuple[str, int], int]) -> list[DecoderRow]:
    """The rows of `preflight`, from counts by `key`."""
    found = []
    for (syntax, bits), files in seen.items():
        usable = find_plugin(UID(syntax), bits)
        name = "Deflated Image Frame" if syntax == DEFLATED_FRAME else UID(syntax).name or "none given"
        decoder = "+".join(_PACKAGES.get(usable, (usable,)))
        found.append(
            DecoderRow(
                syntax=name if bits <= 8 else f"{name}, {bits} bit",
                decoder=decoder,
                files=files,
                install="" if usable else remedy(UID(syntax), bits),
            )
        )
    return sorted(found, key=lambda row: (-row.files, row.syntax))


def find_plugin(syntax: UID, bits: int = 8) -> str:
    """The plugin of pydicom that reads a transfer syntax here and now; "" when none does."""
    if syntax in _UNCOMPRESSED:
        return "pydicom"
    if syntax == DEFLATED_FRAME:
        return "zlib"
    wanted = permissive_plugins(syntax, bits)
    ready = get_decoder(syntax).available_plugins if wanted else ()
    return next((plugin for plugin in wanted if plugin in ready), "")


def permissive_plugins(syntax: UID, bits: int = 8) -> tuple[str, ...]:
    """The permissive plugins that can read a transfer syntax, installed or not, the best first."""
    wanted = _PLUGINS.get(syntax, ())
    # Pillow's JPEG library is built for 8 bits.
    return (_GDCM,) if syntax == uid.JPEGExtended12Bit and bits > 8 else wanted


def remedy(syntax: UID, bits: int = 8) -> str:
    """The line that installs a decoder, or what to do where no permissive library has one."""
    wanted = permissive_plugins(syntax, bits)
    if not wanted:
        return "no permissive decoder reads it: convert these files, for example to JPEG 2000"
    missing = [name for name in _PACKAGES[wanted[0]] if not _is_installed(name)]
    return f"pip install {' '.join(missing or _PACKAGES[wanted[0]])}"


def _is_installed(package: str) -> bool:
    module = {"python-gdcm": "gdcm", "pillow": "PIL", "pylibjpeg-openjpeg": "openjpeg", "pyjpegls": "jpeg_ls"}
    return find_spec(module.get(package, package)) is not None
