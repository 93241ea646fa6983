"""Class labels as captions, in addition to those of the item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from domainclip.data.interfaces import Curation
from domainclip.errors import RecipeError

if TYPE_CHECKING:
    from datasets import Dataset

    from domainclip.data.interfaces import Encoder


@dataclass(frozen=True, kw_only=True)
class LabelsToCaptions(Curation):
    """Adds one caption a template and label to every labelled training item. [arXiv:2412.10372]

    A long caption teaches names and details, which a small corpus lets a model learn by heart; the label
    alone teaches what zero-shot classification will ask. Each epoch draws one of an item's captions, and
    none that an item may show is a negative of its image. Held-out items are unchanged.
    With `most_similar`, an item takes only so many of its label's captions: those most similar to its image
    by the base's embeddings, among candidates that all contain the label [GIST, arXiv:2307.11315]; that costs
    one pass of the base.
    """

    citation: ClassVar[str] = "arXiv:2412.10372"

    templates: list[str]  # texts with one {} for the name of a class
    most_similar: Annotated[int, Field(ge=1)] | None = None  # null: all templates

    @property
    def needs(self) -> frozenset[str]:
        """The base, where its embeddings select captions."""
        return frozenset() if self.most_similar is None else frozenset({"base"})

    def __post_init__(self) -> None:
        for template in self.templates:
            if template.count("{}") != 1:
                raise RecipeError(
                    f'curation.labels_to_captions.templates: "{template}" must hold {{}} once, for the class'
                )

    def __call__(self, items: Dataset, base: Encoder | None = None) -> Dataset:
        """The same items with more captions; those without a label are unchanged."""
        candidates = [
            [[template.replace("{}", label) for template in self.templates] for label in labels]
            for labels in items["labels"][:]
        ]
        if self.most_similar is not None and base is not None:
            candidates = self._nearest(items, candidates, base, self.most_similar)
        return items.map(
            lambda row, at: _add_captions(row, [text for texts in candidates[at] for text in texts]),
            with_indices=True,
            features=items.features,
            keep_in_memory=True,
        )

    @staticmethod
    def _nearest(
        items: Dataset, candidates: list[list[list[str]]], base: Encoder, count: int
    ) -> list[list[list[str]]]:
        """Of each label's candidates those most similar to the image; of equally similar ones the first."""
        distinct = list(dict.fromkeys(text for labels in candidates for texts in labels for text in texts))
        if not distinct:
            return candidates
        position = {text: at for at, text in enumerate(distinct)}
        images, texts = base.images(items), base.texts(distinct)
        chosen = []
        for image, labels in zip(images, candidates, strict=True):
            near = [-(texts[[position[text] for text in label_texts]] @ image) for label_texts in labels]
            orders = [np.argsort(scores, kind="stable")[:count] for scores in near]
            chosen.append(
                [[label_texts[at] for at in order] for label_texts, order in zip(labels, orders, strict=True)]
            )
        return chosen


def _add_captions(row: dict[str, Any], captions: list[str]) -> dict[str, list[str]]:
    new = [text for text in dict.fromkeys(captions) if text not in row["texts"]]
    return {"texts": [*row["texts"], *new], "language": [*row["language"], *([""] * len(new))]}
