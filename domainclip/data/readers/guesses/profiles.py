"""What the cells of a column are: texts, classes, numbers, flags, names of splits, or images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from domainclip.data.splits import is_split
from domainclip.data.text.cell_literals import is_encoded_image
from domainclip.data.text.cells import CellFault, caption_texts, cell_text, label_texts

MAX_ROWS = 20_000  # that are looked at
_FLAGS = frozenset(("0", "1", "-1", "0.0", "1.0", "-1.0", "true", "false"))
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True)
class ColumnProfile:
    """Counts over the cells of one column."""

    name: str
    rows: int
    counts: Counter[str]  # of the texts in its cells; a cell with a list counts each of its values
    images: int = 0  # cells that hold an image itself
    lists: int = 0  # cells that hold a list of texts
    filled: int = 0  # cells that are not empty

    @property
    def distinct(self) -> int:
        """The number of different values."""
        return len(self.counts)

    @property
    def words(self) -> float:
        """The median number of words of a value; characters count as words where a script has no spaces."""
        lengths = [len(text.split()) if text.isascii() else _length(text) for text in self.counts]
        return median(lengths) if lengths else 0.0

    @property
    def share(self) -> float:
        """The share of rows with a value."""
        return self.filled / max(1, self.rows)

    @property
    def is_numeric(self) -> bool:
        """Whether nearly all values are numbers."""
        return self._most(lambda text: _NUMBER.fullmatch(text) is not None)

    @property
    def is_flag(self) -> bool:
        """Whether all values are 1, 0 or -1, and both 1 and another value or a blank occur."""
        known = {text.casefold() for text in self.counts}
        return bool(known & {"1", "1.0", "true"}) and known <= _FLAGS and (len(known) > 1 or self.share < 1)

    @property
    def is_split(self) -> bool:
        """Whether all values name splits, of which there are two or more."""
        return self.distinct > 1 and all(map(is_split, self.counts))

    @property
    def is_address(self) -> bool:
        """Whether nearly all values are web addresses."""
        return self._most(lambda text: _ADDRESS.match(text) is not None)

    @property
    def repeated(self) -> int:
        """The number of values that occur in several cells."""
        return sum(count > 1 for count in self.counts.values())

    def examples(self, count: int = 3) -> tuple[str, ...]:
        """The most frequent values, each cut to 60 characters."""
        return tuple(
            text if len(text) <= 60 else f"{text[:59]}…" for text, _ in self.counts.most_common(count)
        )

    def _most(self, matches: Any) -> bool:
        hits = sum(count for text, count in self.counts.items() if matches(text))
        return hits > 0.95 * max(1, self.counts.total())


def profile_columns(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[ColumnProfile]:
    """The profile of each column, from the first rows."""
    rows = rows[:MAX_ROWS]
    return [_profile(name, [row.get(name) for row in rows]) for name in columns]


def _profile(name: str, cells: Sequence[Any]) -> ColumnProfile:
    counts: Counter[str] = Counter()
    images = lists = filled = 0
    for cell in cells:
        if _is_image(cell):
            images += 1
            filled += 1
            continue
        texts = [text for text in _texts(cell) if text]
        lists += isinstance(cell, (list, tuple)) or len(texts) > 1
        filled += bool(texts)
        counts.update(texts)
    return ColumnProfile(name, len(cells), counts, images, lists, filled)


def _texts(cell: Any) -> Iterable[str]:
    for convert in (_one, caption_texts, label_texts):
        try:
            return convert(cell)
        except CellFault:
            continue
    return ()


def _one(cell: Any) -> list[str]:
    text = cell_text(cell)
    return caption_texts(text) if text[:1] in ("[", "{") else [text]


def _is_image(cell: Any) -> bool:
    if isinstance(cell, (bytes, bytearray)):
        return True
    if isinstance(cell, Mapping):
        return bool({"bytes", "path"} & set(cell))
    return isinstance(cell, str) and is_encoded_image(cell)


def _length(text: str) -> int:
    from domainclip.data.text.languages import count_words

    return count_words(text)
