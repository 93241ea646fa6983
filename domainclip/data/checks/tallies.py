"""Counts over a column of a split, computed by Arrow a part at a time: rows do not become Python objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

_ROWS = 10_000  # read at once


def count_values(items: Dataset, column: str) -> Counter[str]:
    """The rows of each value of a column of texts."""
    tally: Counter[str] = Counter()
    for part in _parts(items, column):
        counted = part.value_counts()
        tally.update(dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True)))
    return tally


def count_labels(items: Dataset) -> Counter[str]:
    """The items of each label; an item that names a label twice is counted once."""
    tally: Counter[str] = Counter()
    for part in _parts(items, "labels"):
        encoded = pc.list_flatten(part).dictionary_encode()
        rows = pc.list_parent_indices(part).to_numpy().astype(np.int64)
        names = encoded.dictionary.to_pylist()
        each = np.unique(rows * max(1, len(names)) + encoded.indices.to_numpy())
        counts = np.bincount(each % max(1, len(names)), minlength=len(names)).tolist()
        tally.update(dict(zip(names, counts, strict=True)))
    return tally


def count_labelled(items: Dataset) -> int:
    """The items with a label."""
    return sum(pc.sum(pc.greater(pc.list_value_length(part), 0)).as_py() for part in _parts(items, "labels"))


def names_among_captions(items: Dataset, names: Collection[str]) -> set[str]:
    """The names that are a caption of an item, letter by letter."""
    wanted, present = pa.array(sorted(names), pa.string()), set[str]()
    for part in _parts(items, "texts"):
        texts = pc.list_flatten(part)
        present |= set(texts.filter(pc.is_in(texts, value_set=wanted)).to_pylist())
    return present


def share_a_value(splits: Sequence[Dataset], column: str) -> bool:
    """Whether a value of a column of texts is in two of the splits."""
    for number, items in enumerate(splits[1:], start=1):
        later = pa.chunked_array(list(_parts(items, column)), pa.string()).unique()
        for part in (part for earlier in splits[:number] for part in _parts(earlier, column)):
            if pc.any(pc.is_in(part, value_set=later)).as_py():
                return True
    return False


def _parts(items: Dataset, column: str) -> Iterator[pa.Array]:
    for part in items.select_columns([column]).with_format("arrow").iter(_ROWS):
        yield part.column(column).combine_chunks()
