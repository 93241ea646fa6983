"""The images among the files of a folder: by their suffix, and DICOM files also by their content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from PIL import Image

from domainclip.data.dicom import reading
from domainclip.data.files import file_kinds
from domainclip.data.images import decode
from domainclip.errors import UnreadableImage

_PILLOW_FORMATS = Image.registered_extensions()  # by suffix
_FITS = (".fits", ".fit", ".fts")
_SUFFIXES = (
    *sorted(suffix for suffix, kind in _PILLOW_FORMATS.items() if kind in decode.FORMATS),
    *(".mpo", ".dcm", ".dicom", *_FITS, ".fz"),
    *(f"{suffix}.gz" for suffix in _FITS),
)
_HEAD_BYTES = 512  # enough to recognise the kind of a file


def select_images(files: Sequence[Path]) -> list[Path]:
    """The files that are images, in their order.

    Files without a known suffix are taken when they are DICOM images, as archives export them. Beside such
    images, a file that is empty or of no known kind is a damaged one: it is taken, to be counted as unusable.
    """
    by_content = _dicom_by_content([file for file in files if not image_suffix(file)])
    return [file for file in files if image_suffix(file) or file in by_content]


def image_suffix(file: Path) -> str:
    """The suffix that marks a file as an image; "" for any other file."""
    name = file.name.lower()
    return max((suffix for suffix in _SUFFIXES if name.endswith(suffix)), key=len, default="")


def describe_others(files: Sequence[Path]) -> str:
    """The kinds of files that are no images, "2 .mp4, 1 of other kinds"; common ones are left out."""
    counts: Counter[str] = Counter()
    for file in files:
        suffix = file.suffix.lower()
        if not file_kinds.is_common(file):
            known = file_kinds.is_known(file)
            counts[suffix if known else "of other kinds" if suffix else "without a suffix"] += 1
    return ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))


def _dicom_by_content(files: Sequence[Path]) -> frozenset[Path]:
    images, damaged = [], []
    for file in files:
        if file_kinds.is_common(file) or file_kinds.is_known(file):
            continue
        with suppress(OSError), file.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
            if reading.is_dicom(head):
                images += [file] if _is_image(file) else []
            elif not file_kinds.kind_of_content(head):
                damaged.append(file)
    return frozenset([*images, *damaged] if images else [])


def _is_image(file: Path) -> bool:
    """Whether a DICOM file is an image, or a broken one; not a report or a directory."""
    try:
        reading.read_header(file, ["Modality"])
    except UnreadableImage as error:
        return not error.reason.startswith("not an image")
    return True
