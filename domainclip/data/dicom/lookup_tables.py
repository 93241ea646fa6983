"""Lookup tables: modality, VOI and presentation [DICOM PS3.3 C.11.1, C.11.2, C.11.4].

pydicom implements them too, but computes indices in the type of the entries, so that a table of 4096 entries
of 8 bits repeats every 256 values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset


@dataclass(frozen=True)
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


def read_lookup_table(item: Dataset, dataset: Dataset) -> LookupTable:
    """The table in an item of a sequence; the encoding of `dataset` determines the byte order."""
    count, first, depth = (int(value) for value in item.LUTDescriptor)
    count = count or 2**16  # 65536 does not fit into the descriptor's two bytes and is stored as 0
    data = item["LUTData"].value
    if isinstance(data, bytes):
        little_endian = dataset.original_encoding[1] is not False
        is_words = len(data) >= 2 * count  # entries of 8 bits may be stored as bytes or as words
        data = np.frombuffer(data, ("<u2" if little_endian else ">u2") if is_words else "u1", count)
    entries = np.atleast_1d(np.asarray(data)).astype(np.int64)
    return LookupTable(entries[:count], first, 2**depth - 1)
