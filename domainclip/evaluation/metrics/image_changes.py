"""Images that are another one with a change: the queries of composed retrieval, and pairs that differ."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from domainclip.data.schema import CANDIDATES, CHANGE, REFERENCE
from domainclip.data.text.captions import normalise

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class ImageChange:
    """One item, the item that its image was made of, and the change in words."""

    row: int
    reference: int  # the row of the reference image
    text: str
    candidates: tuple[int, ...] = ()  # the rows that a search may be limited to


@dataclass(frozen=True)
class ImageChanges:
    """The changes of a set, in the order of its items."""

    changes: list[ImageChange]
    images: np.ndarray  # (n,) the number of the image of each item; equal for items with the same file
    without_reference: int  # items with a change that have no other image of the set as reference

    @property
    def lost(self) -> dict[str, int]:
        """The number of items that were left out, for the details of a probe; empty without any."""
        return {"without_reference_image": self.without_reference} if self.without_reference else {}


def read_changes(items: Dataset) -> ImageChanges:
    """The items whose card columns `reference` and `change` name another image of the set and the change.

    An item whose reference is its own image shows no change, and counts as one without reference.
    """
    images = image_numbers(items)
    row_of = {id: row for row, id in enumerate(items["id"][:])}
    changes, lost = [], 0
    for row, cell in enumerate(items["meta"][:]):
        meta = json.loads(cell or "{}")
        text = meta.get(CHANGE, "")
        if not normalise(text):
            continue
        reference = row_of.get(meta.get(REFERENCE, ""), row)
        if images[reference] == images[row]:
            lost += 1
            continue
        known = (row_of[id] for id in meta.get(CANDIDATES, ()) if id in row_of)
        changes.append(ImageChange(row, reference, text, tuple(known)))
    return ImageChanges(changes, images, lost)


def image_numbers(items: Dataset) -> np.ndarray:
    """(n,) the number of the image of each item, from 0: items with the same file have the same number.

    Images without path and bytes are different.
    """
    numbers: dict[str, int] = {}
    keys = (_image_key(image, row) for row, image in enumerate(items["image"]))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _image_key(image: dict[str, str | bytes | None], row: int) -> str:
    data = image["bytes"]
    if isinstance(data, bytes):
        return f"\0{hashlib.sha256(data).hexdigest()}"
    return str(image["path"] or f"\0row {row}")
