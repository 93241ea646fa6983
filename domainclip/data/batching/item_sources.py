"""The source and the acquisition of items, as their card names the columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any, Literal

from domainclip.data.schema import ACQUISITION, SOURCE

if TYPE_CHECKING:
    from datasets import Dataset

SourceKind = Literal["source", "acquisition", "both"]
_KEYS = {"source": (SOURCE,), "acquisition": (ACQUISITION,), "both": (SOURCE, ACQUISITION)}
COLUMNS_OF = {
    "source": "columns.source",
    "acquisition": "columns.acquisition",
    "both": "columns.source and columns.acquisition",
}


@dataclass(frozen=True)
class SourceNumbers:
    """The sources of a corpus, numbered in alphabetical order."""

    by: SourceKind
    numbers: Mapping[tuple[str, ...], int]  # without an item that has none

    @classmethod
    def of(cls, items: Dataset, by: SourceKind) -> SourceNumbers:
        """The numbers of the sources of these items."""
        named = sorted({name for name in source_names(items, by) if any(name)})
        return cls(by, {name: number for number, name in enumerate(named)})

    def number_of(self, meta: Mapping[str, Any]) -> float:
        """The number of an item's source; NaN for an item without one, or with another."""
        return self.numbers.get(_name(meta, self.by), nan)


def source_names(items: Dataset, by: SourceKind) -> list[tuple[str, ...]]:
    """(n) the values of each item, "" where it has none."""
    return [_name(json.loads(meta or "{}"), by) for meta in items["meta"][:]]


def _name(meta: Mapping[str, Any], by: SourceKind) -> tuple[str, ...]:
    return tuple(str(meta.get(key, "")) for key in _KEYS[by])
