"""Lookup tables: modality, VOI and presentation [DICOM PS3.3 C.11.1, C.11.2, C.11.4].

pydicom implements them too, but computes indices in the type of the entries, so that a table of 4096 entries
of 8 bits repeats every 256 values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from domainclip.data.dicom import attributes

_MAX_DEPTH = 16  # bits of an entry


@dataclass(frozen=True, eq=False)  # compared by identity
class LookupTable:
    """Output values for consecutive inputs, beginning with the input `first`."""

    entries: np.ndarray  # (n,)
    first: int
    maximum: int  # of its bit depth

    def look_up(self, values: np.ndarray) -> np.ndarray:
        """The entry of each value, float64; values outside the table get its first or last entry."""
        indices = np.clip(np.nan_to_num(values).astype(np.int64) - self.first, 0, len(self.entries) - 1)
        outputs: np.ndarray = self.entries[indices].astype(np.float64)
        return outputs


def read_lookup_table(item: Dataset, dataset: Dataset) -> LookupTable | None:
    """The table in an item of a sequence; None if it is not usable.

    The encoding of `dataset` determines the byte order of the entries.
    """
    descriptor = [
        None if value is None else int(value) for value in attributes.numbers(item, "LUTDescriptor")
    ]
    if len(descriptor) != 3 or None in descriptor or "LUTData" not in item:
        return None
    count, first, depth = (value or 0 for value in descriptor)
    count = count % 2**16 or 2**16  # 65536 does not fit into the descriptor's two bytes and is stored as 0
    if not 1 <= depth <= _MAX_DEPTH:
        return None
    little_endian = dataset.original_encoding[1] is not False
    entries = _entries(item, count, depth, little_endian)
    if entries is None or len(entries) < count:
        return None
    if first >= 2**15 and _has_negative_inputs(dataset):  # its type depends on other attributes
        first -= 2**16
    return LookupTable(entries[:count], first, 2**depth - 1)


def _has_negative_inputs(dataset: Dataset) -> bool:
    intercept = attributes.number(dataset, "RescaleIntercept")
    return attributes.integer(dataset, "PixelRepresentation") == 1 or (intercept or 0) < 0


def _entries(item: Dataset, count: int, depth: int, little_endian: bool) -> np.ndarray | None:
    element = item.get_item("LUTData")
    data = None if element is None else element.value
    if isinstance(element, RawDataElement) or isinstance(data, (bytes, bytearray)):
        data = bytes(data or b"")
        is_words = depth > 8 or len(data) >= 2 * count  # of 8 bits they may be bytes or words
        kind = ("<u2" if little_endian else ">u2") if is_words else "u1"
        return np.frombuffer(data[: len(data) // 2 * 2 if is_words else None], kind).astype(np.int64)
    try:
        return np.atleast_1d(np.asarray(data)).astype(np.int64)
    except (TypeError, ValueError, OverflowError):
        return None
