"""The images of a corpus in order, views included, each read from its row on access."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from domainclip.data.schema import SPLITS

if TYPE_CHECKING:
    from datasets import DatasetDict


@dataclass(frozen=True, slots=True)  # there is one for each image of a corpus
class Position:
    """Where an image is in a corpus."""

    split: str
    row: int
    view: int  # 0: the image of the item, else a further view


class CorpusImages:
    """Images of a corpus, each read from its row on access: a row may contain a whole file."""

    def __init__(self, splits: DatasetDict, positions: Sequence[Position]) -> None:
        self._rows = {name: splits[name].select_columns(["image", "views"]) for name in SPLITS}
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        position = self._positions[index]
        row: dict[str, Any] = self._rows[position.split][position.row]
        image: dict[str, Any] = row["views"][position.view - 1] if position.view else row["image"]
        return image


def positions_in(
    ids: Mapping[str, Sequence[str]], views: Mapping[str, Sequence[str]], sample: int | None
) -> list[Position]:
    """The position of every image, or of `sample` of them, spread evenly.

    `ids` are of items by split, `views` the digests of the further images of those that have any.
    """
    if len(views) or sample is None:
        positions = [
            Position(name, row, view)
            for name in SPLITS
            for row, id in enumerate(ids[name])
            for view in range(1 + (len(views.get(id, ())) if len(views) else 0))
        ]
        if sample is None:
            return positions
        return [positions[i * len(positions) // sample] for i in range(sample)]
    # Of a million items, the positions that are not inspected are never made.
    ends = np.cumsum([len(ids[name]) for name in SPLITS])
    places = [i * int(ends[-1]) // sample for i in range(sample)]
    splits = np.searchsorted(ends, places, side="right").tolist()
    return [
        Position(SPLITS[split], place - (int(ends[split - 1]) if split else 0), 0)
        for place, split in zip(places, splits, strict=True)
    ]


def positions_of(
    ids: Mapping[str, Sequence[str]], digests: Mapping[str, Sequence[str]]
) -> tuple[list[Position], list[str]]:
    """The position and the digest of every image; `ids` are of items by split, `digests` of images by id."""
    positions: list[Position] = []
    found: list[str] = []
    for name in SPLITS:
        for row, id in enumerate(ids[name]):
            for view, digest in enumerate(digests[id]):
                positions.append(Position(name, row, view))
                found.append(digest)
    return positions, found
