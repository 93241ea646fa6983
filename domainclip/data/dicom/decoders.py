"""Decoders of the transfer syntaxes, and how to install a missing one [DICOM PS3.5 §10, A.4].

Only libraries under permissive licences are used, whatever is installed: never pylibjpeg-libjpeg.
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

from domainclip.data.dicom.attributes import parse_number
from domainclip.data.dicom.reading import read_header
from domainclip.data.dicom.transfer_syntaxes import DEFLATED_FRAME, NATIVE, syntax_name
from domainclip.data.files import locations
from domainclip.errors import UnreadableImage

GDCM, _PILLOW, _OPENJPEG, _CHARLS = "gdcm", "pillow", "pylibjpeg", "pyjpegls"
# pydicom's names of its plugins, the best first. Pillow cannot decode colour of more than 8 bits.
_PLUGINS: dict[UID, tuple[str, ...]] = {
    uid.RLELossless: ("pydicom",),
    uid.JPEGBaseline8Bit: (_PILLOW, GDCM),
    uid.JPEGExtended12Bit: (_PILLOW, GDCM),
    uid.JPEGLossless: (GDCM,),
    uid.JPEGLosslessSV1: (GDCM,),
    uid.JPEGLSLossless: (_CHARLS, GDCM),
    uid.JPEGLSNearLossless: (_CHARLS, GDCM),
    uid.JPEG2000Lossless: (_OPENJPEG, GDCM, _PILLOW),
    uid.JPEG2000: (_OPENJPEG, GDCM, _PILLOW),
    uid.HTJ2KLossless: (_OPENJPEG,),
    uid.HTJ2KLosslessRPCL: (_OPENJPEG,),
    uid.HTJ2K: (_OPENJPEG,),
}
_PACKAGES = {
    GDCM: ("python-gdcm",),
    _PILLOW: ("pillow",),
    _OPENJPEG: ("pylibjpeg", "pylibjpeg-openjpeg"),
    _CHARLS: ("pyjpegls",),
}


@dataclass(frozen=True)
class DecoderRow:
    """One transfer syntax of a corpus: the number of its files, and their decoder."""

    syntax: str  # its name in the standard
    decoder: str  # the packages that decode it; "" if none is installed
    files: int
    install: str = ""  # the command that installs a missing decoder, or another remedy


def decoder_table(paths: Iterable[Path | str]) -> list[DecoderRow]:
    """A row for each transfer syntax of the image files, the most frequent first; no pixels are read.

    Files that are not DICOM images are skipped, and a file with several frames counts once.
    """
    file_counts: Counter[tuple[str, int]] = Counter()
    for path in dict.fromkeys(locations.resolve_location(str(path)) for path in paths):
        try:
            file_counts[syntax_key(read_header(Path(path), ["TransferSyntaxUID", "BitsStored"]))] += 1
        except UnreadableImage:
            continue
    return decoder_rows(file_counts)


def syntax_key(attributes: Mapping[str, str]) -> tuple[str, int]:
    """What the decoder depends on: the transfer syntax and, for JPEG Extended, 8 or 12 bits of a sample."""
    syntax, bits = attributes["TransferSyntaxUID"], parse_number(attributes["BitsStored"])
    return syntax, 12 if syntax == uid.JPEGExtended12Bit and (bits or 8) > 8 else 8


def decoder_rows(file_counts: Mapping[tuple[str, int], int]) -> list[DecoderRow]:
    """The rows of `decoder_table`, from numbers of files by `syntax_key`."""
    rows = []
    for (syntax, bits), files in file_counts.items():
        plugin = find_plugin(UID(syntax), bits)
        name = syntax_name(syntax)
        decoder = "+".join(_PACKAGES.get(plugin, (plugin,)))
        rows.append(
            DecoderRow(
                syntax=name if bits <= 8 else f"{name}, {bits} bit",
                decoder=decoder,
                files=files,
                install="" if plugin else remedy(UID(syntax), bits),
            )
        )
    return sorted(rows, key=lambda row: (-row.files, row.syntax))


def find_plugin(syntax: UID, bits: int = 8) -> str:
    """The installed plugin of pydicom that decodes a transfer syntax; "" if there is none."""
    if syntax in NATIVE:
        return "pydicom"
    if syntax == DEFLATED_FRAME:
        return "zlib"
    plugins = permissive_plugins(syntax, bits)
    installed = get_decoder(syntax).available_plugins if plugins else ()
    return next((plugin for plugin in plugins if plugin in installed), "")


def permissive_plugins(syntax: UID, bits: int = 8) -> tuple[str, ...]:
    """The permissive plugins that can decode a transfer syntax, installed or not, the best first."""
    # Pillow's JPEG library is built for 8 bits.
    return (GDCM,) if syntax == uid.JPEGExtended12Bit and bits > 8 else _PLUGINS.get(syntax, ())


def remedy(syntax: UID, bits: int = 8) -> str:
    """The command that installs a decoder, or another remedy if no permissive library has one."""
    plugins = permissive_plugins(syntax, bits)
    if not plugins:
        return "no permissive decoder reads it: convert these files, for example to JPEG 2000"
    missing = [name for name in _PACKAGES[plugins[0]] if not _is_installed(name)]
    return f"pip install {' '.join(missing or _PACKAGES[plugins[0]])}"


def package_files() -> list[Path]:
    """A file of each installed decoder: with other ones, other files of a corpus can be decoded."""
    specs = (find_spec(_module(package)) for packages in _PACKAGES.values() for package in packages)
    return [Path(spec.origin) for spec in specs if spec is not None and spec.origin]


def _is_installed(package: str) -> bool:
    return find_spec(_module(package)) is not None


def _module(package: str) -> str:
    module = {"python-gdcm": "gdcm", "pillow": "PIL", "pylibjpeg-openjpeg": "openjpeg", "pyjpegls": "jpeg_ls"}
    return module.get(package, package)
