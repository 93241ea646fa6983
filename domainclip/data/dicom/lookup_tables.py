"""Look-up tables: modality, VOI and presentation [DICOM PS3.3 C.11.1, C.11.2, C.11.4].

pydicom has them too, but keeps the place in a table in the type of its entries, so that a table of 4096
entries of 8 bits repeats itself every 256 values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset


@dataclass(frozen=True)
class LookupTable:
    """Values for consecutive inputs, the first of which is `first`."""

    entries: np.ndarray  # (n,)
    first: int
    top: int  # the largest value that its depth can hold

    def look_up(self, values: np.ndarray) -> np.ndarray:
        """The entry of each value, float64; what lies outside the table gets its first or last one."""
        places = np.clip(np.nan_to_num(values).astype(np.int64) - self.first, 0, len(self.entries) - 1)
        found: np.ndarray = self.entries[places].astype(np.float64)
        return found


def read_lookup_table(item: Dataset, dataset: Dataset) -> LookupTable:
    """The table in an item of a sequence; `dataset` says which end of a word comes first."""
    count, first, depth = (int(value) for value in item.LUTDescriptor)
    count = count or 2**16  # 65536 does not fit into the two bytes of the descriptor
    data = item["LUTData"].value
    if isinstance(data, bytes):
        little = dataset.original_encoding[1]
        wide = len(data) >= 2 * count  # entries of 8 bits may stand in bytes or in words
        data = np.frombuffer(data, ("<u2" if little is not False else ">u2") if wide else "u1", count)
    entries = np.atleast_1d(np.asarray(data)).astype(np.int64)
    return LookupTable(entries[:count], first, 2**depth - 1)
