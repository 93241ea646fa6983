"""Checks of how images are shown: nearly black, nearly white, flat; corrupt; FITS files of several images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from domainclip.data.checks.findings import MAX_LOCATIONS, Finding
from domainclip.data.checks.images import InspectedCorpus
from domainclip.data.dicom.isolated_gdcm import MESSAGE_KINDS

# Nearly black: 95 % of a thumbnail's pixels are darker. Nearly white: 99 % are brighter, since a drawing has
# little ink. Flat: the range of 98 % of the pixels.
_DARK, _BRIGHT, _FLAT = 24, 231, 8
_NO_LEVELS = np.zeros((3, 0))
_REMEDIES = {
    "FITS": "set corpus.images.fits.stretch=zscale; for counts of few photons corpus.images.fits.smooth=3; "
    "or choose another image by corpus.images.fits.hdu",
    "more than 8 bits": "set corpus.images.bit_depth.percentiles=1,90",
    "DICOM": "choose a window, see docs/guide/dicom.md",
    "8 bits": "they are stored so: leave them out, or set corpus.checks.low_contrast=info",
}


def low_contrast(inspected: InspectedCorpus) -> Iterator[Finding]:
    """Images that are readable, and show next to nothing."""
    inspections = inspected.inspections
    usable = (inspections["reason"] == b"") & ~inspections["blank"]
    levels = inspections["thumbnail"].reshape(len(inspections), -1)
    darkest, bright, brightest = np.percentile(levels, (1, 95, 99), axis=1) if len(levels) else _NO_LEVELS
    kinds = {
        "nearly black": usable & (bright < _DARK),
        "nearly white": usable & (darkest > _BRIGHT),
    }
    kinds["flat"] = usable & (brightest - darkest < _FLAT) & ~np.any(list(kinds.values()), axis=0)
    shown = {kind: int(mask.sum()) for kind, mask in kinds.items() if mask.any()}
    if not shown:
        return
    affected = np.flatnonzero(np.any(list(kinds.values()), axis=0))
    where = tuple(inspected.location(index) for index in affected.tolist())
    formats = Counter(_format(inspections["mode"][index].decode()) for index in affected)
    remedies = "; ".join(
        f"{format} ({count}): {_REMEDIES[format]}" for format, count in formats.most_common()
    )
    yield Finding(
        "warning",
        f"{len(affected)} of {inspected.count_text()} come out "
        f"{', '.join(f'{kind} ({count})' for kind, count in shown.items())}; "
        f"first: {', '.join(where[:MAX_LOCATIONS])}; "
        f"look at them with domainclip data preview; {remedies}",
        "low_contrast",
        len(affected),
        where,
    )


def _format(mode: str) -> str:
    """The key of the remedy for images of a stored mode."""
    if mode in ("FITS", "DICOM"):
        return mode
    return "more than 8 bits" if mode.startswith(("I", "F", "uint", "int", "float")) else "8 bits"


def decoder_messages(inspected: InspectedCorpus) -> Iterator[Finding]:
    """Images during whose decoding GDCM printed a message, by its kind."""
    printed = inspected.inspections["messages"]
    affected = np.flatnonzero(printed.any(axis=1))
    if not len(affected):
        return
    counts = dict(zip(MESSAGE_KINDS, printed.sum(axis=0).tolist(), strict=True))
    kinds = ", ".join(f"{kind} ({count})" for kind, count in counts.items() if count)
    where = tuple(inspected.location(index) for index in affected.tolist())
    is_harmless = counts == dict.fromkeys(MESSAGE_KINDS, 0) | {MESSAGE_KINDS[1]: len(affected)}
    remedy = (
        "corrupt data may be shown as wrong pixels: compare these images with their source, leave them out, "
        "or set corpus.checks.decoder_messages=info"
    )
    yield Finding(
        "info" if is_harmless else "warning",
        f"{len(affected)} of {inspected.count_text()} made GDCM print a message: {kinds}; "
        f"first: {', '.join(where[:MAX_LOCATIONS])}; {'their 12 bits are read' if is_harmless else remedy}",
        "decoder_messages",
        len(affected),
        where,
    )


def fits_planes(inspected: InspectedCorpus) -> Iterator[Finding]:
    """FITS files of several images, of which the card names none."""
    settings = inspected.corpus.card.images.fits
    several = int((inspected.inspections["planes"] > 1).sum())
    if several and not settings.hdus and not settings.bands:
        yield Finding(
            "info",
            f"{several} FITS files hold several images: the one named SCI is shown, else the first that is "
            "no weight, error, mask or exposure map; domainclip data preview names it; set "
            "corpus.images.fits.hdu=SCI,0 (names and numbers, in the order to look for) to choose another",
            "fits_planes",
            several,
        )
