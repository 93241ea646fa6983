"""Text pairs: two texts of an item are matched, so that the text tower stays a text retriever.

Legend: b pairs, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from domainclip.data.text.related_texts import LanguageFilter, column_texts, draw_texts, other_captions
from domainclip.data.text.training_pair import TrainingPair
from domainclip.objectives.base import Negatives, Objective, Taught, Views
from domainclip.objectives.losses.extra_texts import pair_losses


@dataclass(frozen=True, kw_only=True)
class TextPairs(Objective):
    """1/b Σ_i ½ [CE(y_i → z_i) + CE(z_i → y_i)] among the texts of the batch, beside an image–text loss.

    z is one text of the column, or without a column another caption of the item: `other_language` takes
    translations as pairs [arXiv:2007.07834], `any` any of them. A pair without one counts 0, and is no
    negative. Texts are more similar to each other than to images, so a separate `temperature` may fit better
    than that of the model. Cost: one further text per pair. [arXiv:2405.20204]
    """

    citation: ClassVar[str] = "arXiv:2405.20204"
    negatives: ClassVar[Negatives] = "other_groups"
    needs: ClassVar[frozenset[str]] = frozenset({"extra_text"})
    teaches: ClassVar[frozenset[Taught]] = frozenset({"text"})

    column: str | None = None  # of the item's meta; null: another caption
    captions: LanguageFilter = "any"  # the language of the other caption
    temperature: Annotated[float, Field(gt=0, le=10)] | None = None  # null: that of the model

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        """The other text of the pair, drawn by its seed."""
        candidates = (
            other_captions(pair, self.captions) if self.column is None else column_texts(pair, self.column)
        )
        return draw_texts((text for text in candidates if text != pair.text), pair, 1)

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        assert views.extra_text is not None  # the run fills what `needs` names
        assert views.extra_text_mask is not None
        scale = None if self.temperature is None else views.scale.new_tensor(1 / self.temperature)
        return pair_losses(
            views, views.text, views.extra_text[:, 0], views.extra_text_mask[:, 0], scale
        ).mean()
