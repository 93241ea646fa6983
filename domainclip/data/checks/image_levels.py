"""Checks of how images are shown: blank, nearly black, nearly white, flat; FITS files of several images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from domainclip.data.checks.findings import MAX_LOCATIONS, Finding
from domainclip.data.checks.images import InspectedCorpus

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
