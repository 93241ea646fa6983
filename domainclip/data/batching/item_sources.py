"""The source and the acquisition of items, as their card names the columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

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


def source_names(items: Dataset, by: SourceKind) -> list[tuple[str, ...]]:
    """(n) the values of each item, "" where it has none."""
    metas = (json.loads(meta or "{}") for meta in items["meta"][:])
    return [tuple(str(meta.get(key, "")) for key in _KEYS[by]) for meta in metas]
