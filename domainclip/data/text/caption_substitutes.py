"""Captions that replace images in training: those of another item with the same labels. [arXiv:2211.12739]"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from domainclip import seeding

if TYPE_CHECKING:
    from datasets import Dataset


def substitute_captions(items: Dataset, seed: int) -> list[str]:
    """For each item the first caption of another item with the same labels, else its first caption."""
    labels = [frozenset(item_labels) for item_labels in items["labels"][:]]
    texts = [next(filter(None, captions), "") for captions in items["texts"][:]]
    rows_of: defaultdict[frozenset[str], list[int]] = defaultdict(list)
    places = []
    for row, label_set in enumerate(labels):
        places.append(len(rows_of[label_set]))
        rows_of[label_set].append(row)
    return [
        texts[_other_row(row, rows_of[label_set] if label_set else [row], places[row], seed)]
        for row, label_set in enumerate(labels)
    ]


def _other_row(row: int, rows: list[int], place: int, seed: int) -> int:
    """One of `rows` besides `row`, which is at `place` among them; `row` when it is the only one."""
    if len(rows) == 1:
        return row
    choice = seeding.stable(seed, row, "stands in") % (len(rows) - 1)
    return rows[choice + (choice >= place)]
