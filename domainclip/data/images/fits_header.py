"""Keywords of FITS headers as columns: `header.OBJECT` names the keyword OBJECT of the image's file.

The HDU that is shown is searched first, then the primary header, which holds what all HDUs share.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from domainclip.data.files import locations
from domainclip.data.images import fits_hdus
from domainclip.data.images.fits_settings import HEAD_BYTES, is_fits
from domainclip.errors import DataError, UnreadableImage, did_you_mean

PREFIX = "header."
_STRUCTURE = "|SIMPLE|XTENSION|BITPIX|NAXIS[0-9]*|EXTEND|PCOUNT|GCOUNT|BSCALE|BZERO|BLANK"  # of the file
_MAX_PIXELS = 2**27  # of the HDUs of a zipped file


def is_header_column(name: str) -> bool:
    """Whether a column is a keyword of the images' headers, not one of the source."""
    return name.startswith(PREFIX) and len(name) > len(PREFIX)


class HeaderColumns:
    """Reads the header columns of rows, and counts the rows without a value."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = list(dict.fromkeys(columns))
        self._rows, self._files = 0, 0
        self._values: Counter[str] = Counter()  # rows with a value, by column
        self._known: set[str] = set()  # keywords of all files

    def read(self, image: Mapping[str, Any]) -> dict[str, str]:
        """The values of an image's file by column: text, "" where the file has no such keyword."""
        self._rows += 1
        headers = _headers(image)
        self._files += bool(headers)
        values = {column: _value(headers, column.removeprefix(PREFIX)) for column in self.columns}
        for header in headers:
            self._known |= {str(keyword) for keyword in header}
        self._values.update(column for column, value in values.items() if value)
        return values

    def notes(self) -> list[str]:
        """A line for each column that some rows have no value of; columns are named, values are not."""
        return [
            f"{column} is missing in {self._rows - self._values[column]} of {self._rows} images"
            for column in self.columns
            if 0 < self._values[column] < self._rows
        ]

    def refuse_unknown(self) -> None:
        """Refuse a column that no image has.

        Raises: DataError naming the column and the most similar keyword.
        """
        for column in self.columns:
            if self._rows and not self._values[column]:
                keyword = column.removeprefix(PREFIX)
                if not self._files:
                    raise DataError(f'column "{column}": none of the images is a FITS file: name another one')
                described = {name for name in self._known if not re.fullmatch(_STRUCTURE, name)}
                known = did_you_mean(keyword.upper(), described)
                raise DataError(f'column "{column}": no FITS file has the keyword {keyword}: {known}')


def _headers(image: Mapping[str, Any]) -> list[Any]:
    """The header of the HDU that is shown and the primary header; none for any other file."""
    file, fragment = locations.split_location(str(image["path"] or "image"))
    try:
        data = image["bytes"]
        if data is None:
            if not is_fits(locations.read_location(str(image["path"]), HEAD_BYTES)):
                return []
            data = locations.read_location(str(image["path"]))
        if not is_fits(data):
            return []
        settings = fits_hdus.read_settings(file, fragment)
        with warnings.catch_warnings(), fits_hdus.open_hdus(data, file, _MAX_PIXELS) as hdus:
            warnings.simplefilter("ignore")
            primary = hdus[0].header
            try:
                shown = fits_hdus.select_hdu(hdus, settings.hdus, file).hdu.header
            except UnreadableImage:  # reported when the image is read
                return [primary]
            return [shown, primary]
    except Exception:  # of any kind, for missing and broken files, which are reported with all others
        return []


def _value(headers: Sequence[Any], keyword: str) -> str:
    for header in headers:
        try:
            if keyword not in header:
                continue
            value = header[keyword]
        except Exception:  # a card that breaks the standard
            continue
        text = " ".join(str(value).split())
        if text and type(value).__name__ != "Undefined":
            return text
    return ""
