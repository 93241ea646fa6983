"""What is explored: the items of one split with their embeddings, and the models that answer for them.

Legend: n items, d embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from domainclip.data.cards import Card
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.metrics.retrieval_gallery import Gallery
from domainclip.evaluation.metrics.subgroup_cells import (
    Column,
    is_categorical,
    item_attributes,
    suppressed_cells,
)

_SMALLEST = 10  # groups of a value that is offered as a filter, where ids are pseudonyms
_BEAMS = 3  # captions that are tried at once for an item


@dataclass(frozen=True)
class ExploredModel:
    """One model and its name on the page."""

    label: str
    encoder: CachedEncoder


@dataclass(frozen=True)
class Explored:
    """The readable items of one split, in the order of their ids, and the models."""

    data: EvaluationSet
    models: Sequence[ExploredModel]  # the base first
    unreadable: int = 0  # items that are left out, for no model can see them
    caution: str = ""  # about the split that is read
    command: str = ""  # the `eval` that measures what was tried
    gallery: Gallery | None = None  # the captions of the items, in their most frequent language

    @property
    def card(self) -> Card:
        """The card of the corpus."""
        return self.data.card

    @property
    def shows_content(self) -> bool:
        """Whether images and captions may be shown: the card states that they identify no person."""
        return self.card.content_may_show

    @property
    def size(self) -> int:
        """Number of items n."""
        return len(self.data.items)

    def images(self, model: int) -> np.ndarray:
        """(n, d) float32 of unit length: the embeddings of the items by one model."""
        return self.models[model].encoder.images(self.data.items)

    def written_caption(self, model: int, row: int) -> str:
        """The caption that a model writes for an item; empty where it has no captioner, or may not show it.

        A captioner can repeat the captions that it has learned, so it is bound by what the card allows.

        Raises: DataError when the image cannot be read any more.
        """
        encoder = self.models[model].encoder
        if not self.shows_content or not encoder.has_captioner:
            return ""
        (caption,) = encoder.write_captions(self.data.items.select([row]), _BEAMS)
        return caption

    def captions(self, rows: Sequence[int]) -> list[str]:
        """The first caption of each of some items; empty where it must not be shown or there is none."""
        if not self.shows_content:
            return [""] * len(rows)
        texts = self.data.items.select(rows)["texts"]
        return [next((text for text in of_item if text.strip()), "") for of_item in texts]


def filters(data: EvaluationSet) -> Mapping[str, np.ndarray]:
    """The rows of each value of the attributes with few values, by a name such as sex=F.

    Where ids are pseudonyms, cells of few groups are left out as in the probe `subgroups`: they may be a
    person.
    """
    groups, offered = np.asarray(data.items["group"][:], dtype=str), dict[str, np.ndarray]()
    for name, values in item_attributes(data.items).items():
        if not is_categorical(values):
            continue
        cells = np.array([Column(name).value(value) for value in values])
        rows = {cell: np.flatnonzero(cells == cell) for cell in sorted(set(cells.tolist()))}
        counts: dict[tuple[str, ...], int] = {
            (cell,): len(set(groups[of_cell].tolist())) for cell, of_cell in rows.items()
        }
        hidden = set() if data.card.names_may_show else suppressed_cells(counts, _SMALLEST)
        offered |= {cell: of_cell for cell, of_cell in rows.items() if (cell,) not in hidden}
    return offered
