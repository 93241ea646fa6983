"""Paraphrases: a caption in other words is a positive of the caption, and of the image.

Legend: b pairs, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from domainclip.data.text.related_texts import column_texts, draw_texts, other_captions
from domainclip.data.text.training_pair import TrainingPair
from domainclip.objectives.base import Negatives, Objective, Taught, Views
from domainclip.objectives.losses.extra_texts import first_extra_matches, pair_losses


@dataclass(frozen=True, kw_only=True)
class Paraphrases(Objective):
    """1/b Σ_i [share L(x_i, p_i) + (1 − share) L(y_i, p_i)], beside `contrastive`.

    L is the contrastive loss of a pair in both directions, p a paraphrase: one text of the column, or without
    a column another caption of the item in the same language. A pair without one counts 0, and is no
    negative. The paper adds up the losses of two kinds of paraphrase; here is one. The text tower learns to
    embed two wordings alike, which the probe `paraphrase` measures. Cost: one further text per pair.
    [arXiv:2402.15120]
    """

    citation: ClassVar[str] = "arXiv:2402.15120"
    negatives: ClassVar[Negatives] = "other_groups"
    needs: ClassVar[frozenset[str]] = frozenset({"extra_text"})

    column: str | None = None  # of the item's meta; null: another caption
    share: Annotated[float, Field(ge=0, le=1)] = 0.5  # of the loss against images

    @property
    def teaches(self) -> frozenset[Taught]:
        """Both towers, and without the loss against images the text tower alone."""
        return frozenset({"image", "text"} if self.share else {"text"})

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        """One paraphrase, drawn by the seed of the pair."""
        candidates = (
            other_captions(pair, "same_language") if self.column is None else column_texts(pair, self.column)
        )
        return draw_texts((text for text in candidates if text != pair.text), pair, 1)

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        assert views.extra_text is not None  # the run fills what `needs` names
        assert views.extra_text_mask is not None
        paraphrase, exists = views.extra_text[:, 0], views.extra_text_mask[:, 0]
        to_images = pair_losses(views, views.image, paraphrase, exists, matches=first_extra_matches(views))
        to_texts = pair_losses(views, views.text, paraphrase, exists)
        return (self.share * to_images + (1 - self.share) * to_texts).mean()
