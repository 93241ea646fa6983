"""Attributes of headers that are not used as they stand, counted over the files of a corpus."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from domainclip.data.dicom import frames, windowing
from domainclip.data.dicom.display import DISPLAY_KEYWORDS, read_display
from domainclip.data.dicom.pixel_format import read_pixel_format
from domainclip.data.dicom.reading import read_header_dataset
from domainclip.data.dicom.transfer_syntaxes import stated_syntax
from domainclip.data.files import locations
from domainclip.errors import UnreadableImage

_KEYWORDS = (*DISPLAY_KEYWORDS, *frames.GROUP_KEYWORDS)


def count_doubts(paths: Iterable[Path | str]) -> Counter[str]:
    """The number of image files for each attribute that is not used: "WindowCenter (no number)".

    Only headers are read. Files that cannot be read are skipped, and a file with several frames counts once.
    """
    counts: Counter[str] = Counter()
    for file in dict.fromkeys(locations.resolve_location(str(path)) for path in paths):
        try:
            counts.update(file_doubts(Path(file)))
        except UnreadableImage:
            continue
    return counts


def file_doubts(path: Path) -> tuple[str, ...]:
    """The attributes of one file that are not used, each with its fault, for its first frame.

    Raises: UnreadableImage for a file that is not read at all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = read_header_dataset(path, _KEYWORDS)
        dataset, stated = header.dataset, stated_syntax(header.dataset)
        form = read_pixel_format(dataset, str(path))
        frames.apply_frame_groups(dataset, 0)
        display = read_display(dataset)
        doubts = [*form.doubts]
        if dataset.preamble is None:
            doubts.append("preamble (missing)")
        if stated and header.syntax != stated:
            doubts.append("TransferSyntaxUID (contradicts the pixel data)")
        if header.frames < form.frames:
            doubts.append("NumberOfFrames (more than the pixel data have)")
        if form.is_grey:
            doubts += display.doubts
            outside = (windowing.is_outside(window, form, display) for window in display.windows if window)
            if any(outside):
                doubts.append("WindowCenter (outside the values of the pixels)")
        return tuple(dict.fromkeys(doubts))
