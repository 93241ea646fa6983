"""Labelled boxes in images, from the `meta` column.

A card that lists the column `boxes` under `columns.meta` provides a JSON list with one entry per box:
`[{"label": "effusion", "box": [left, top, right, bottom]}]`, in pixels of the upright image.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

META_KEY = "boxes"


@dataclass(frozen=True)
class Box:
    """One box, in pixels from the top left corner."""

    label: str
    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """Square pixels."""
        return (self.right - self.left) * (self.bottom - self.top)


def read_boxes(items: Dataset) -> tuple[list[list[Box]], int]:
    """The boxes of each item, and the number of invalid entries, which are left out."""
    boxes_of_items, invalid = [], 0
    for meta in items["meta"]:
        entries = json.loads(meta or "{}").get(META_KEY) or []
        if isinstance(entries, str):  # a table holds the list as text
            entries = _parse_json(entries)
        boxes = [_parse_box(entry) for entry in entries] if isinstance(entries, list) else [None]
        boxes_of_items.append([box for box in boxes if box is not None])
        invalid += boxes.count(None)
    return boxes_of_items, invalid


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _parse_box(entry: Any) -> Box | None:
    try:
        left, top, right, bottom = (float(edge) for edge in entry["box"])
        label = entry["label"]
    except (KeyError, TypeError, ValueError):
        return None
    in_order = 0 <= left < right < float("inf") and 0 <= top < bottom < float("inf")
    return Box(label, left, top, right, bottom) if isinstance(label, str) and in_order else None
