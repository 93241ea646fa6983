"""Rendering options of FITS images, and how they travel in the location of a file."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from domainclip.config.strict_model import StrictModel
from domainclip.data.images.value_limits import Percentiles

MAGIC = b"SIMPLE  ="
GZIP_MAGIC = b"\x1f\x8b"
HEAD_BYTES = 4096  # enough to recognise a FITS file, zipped or not
TAR_KEYS = ("offset", "size")  # of a fragment: where the file begins in a tar, not how it is rendered


class FitsSettings(StrictModel):
    """Rendering of a FITS file, from `images.fits` of a card and from the fragment of a location."""

    # asinh shows faint arms and bright cores at once [arXiv:astro-ph/0312483]; zscale is linear between the
    # limits of IRAF's algorithm.
    stretch: Literal["asinh", "linear", "log", "sqrt", "zscale"] = "asinh"
    percentiles: Percentiles = (0.5, 99.5)  # of the finite values: black, white; unused by zscale
    softening: float = Field(default=0.1, gt=0)  # of asinh, as a share of white: linear below
    # Gaussian sigma in pixels, 0: none; counts of few photons are points that vanish when they are resized.
    smooth: float = Field(default=0, ge=0, le=100)
    # Numbers or EXTNAMEs, the most wanted first; null: SCI, else the first image that is no weight or mask.
    hdu: int | str | list[int | str] | None = None
    # Red, green and blue: planes of a cube, names of HDUs, or files in the same folder, as "{stem}_i.fits".
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
                raise ValueError("a band's file must be in the folder of the first: leave out the folder")
        return bands

    @field_validator("hdu", mode="before")
    @classmethod
    def _numbers_or_names(cls, value: Any) -> Any:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list):
            return value
        named = [part.strip() if isinstance(part, str) else part for part in parts]
        if not named or "" in named:
            raise ValueError("name an HDU, by its number or EXTNAME, or leave the key out")
        numbered = [int(part) if isinstance(part, str) and part.isdecimal() else part for part in named]
        return numbered if len(numbered) > 1 or isinstance(value, list) else numbered[0]

    @property
    def hdus(self) -> list[int | str]:
        """The HDUs to look for, in order; none: the default ones."""
        return self.hdu if isinstance(self.hdu, list) else [] if self.hdu is None else [self.hdu]

    def fragment(self) -> dict[str, str]:
        """The settings that differ from the defaults, as keys of a location."""
        changed = self.model_dump(exclude_defaults=True).items()
        return {k: ",".join(map(str, v)) if isinstance(v, (list, tuple)) else str(v) for k, v in changed}


def is_fits(data: bytes) -> bool:
    """Whether bytes begin like a FITS file, gzip-compressed or not."""
    if data[:2] == GZIP_MAGIC:
        try:
            data = zlib.decompressobj(31).decompress(data[:HEAD_BYTES], len(MAGIC))
        except zlib.error:
            return False
    return data.startswith(MAGIC)


def band_files(name: str, fragment: Mapping[str, str]) -> list[Path]:
    """The further files that the bands of an image are read from, existing or not; mostly none."""
    if "{stem}" not in fragment.get("bands", ""):
        return []
    bands = fragment["bands"].split(",")
    return [band_file(name, band, bands) for band in bands if "{stem}" in band]


def band_file(name: str, band: str, bands: Sequence[int | str]) -> Path:
    """The file of a band: `name` may be the file of any band, or just the stem of all of them."""
    file = Path(name)
    for pattern in map(str, bands):
        before, has_stem, after = pattern.partition("{stem}")
        if has_stem and (match := re.fullmatch(f"{re.escape(before)}(.+){re.escape(after)}", file.name)):
            return file.with_name(band.replace("{stem}", match[1]))
    return file.with_name(band.replace("{stem}", file.stem))
