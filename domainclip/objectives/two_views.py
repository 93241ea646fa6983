"""Two views: the caption is a positive of a strongly augmented image too, and another caption of both.

Legend: b pairs, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from domainclip.data.text.related_texts import draw_texts, other_captions
from domainclip.data.text.training_pair import TrainingPair
from domainclip.objectives.base import Negatives, Objective, Views
from domainclip.objectives.losses.extra_texts import first_extra_matches, pair_losses


@dataclass(frozen=True, kw_only=True)
class TwoViews(Objective):
    """1/b Σ_i L(x'_i, y_i), beside `contrastive`: the caption is a positive of a second view too.

    L is the contrastive loss of a pair in both directions, x' a strongly augmented view. `second_text` takes
    the mean with L(x_i, y'_i) and L(x'_i, y'_i), y' another caption of the item, drawn in each epoch: with
    `contrastive` these are the two times two losses of DeCLIP. An item with one caption has the first loss
    only. Cost: every image is encoded twice. [arXiv:2110.05208]
    """

    citation: ClassVar[str] = "arXiv:2110.05208"
    negatives: ClassVar[Negatives] = "other_groups"

    second_text: bool = False  # whether another caption of the item is a positive too

    @property
    def needs(self) -> frozenset[str]:
        """The second view, and another caption where it is used."""
        return frozenset({"image_2", "extra_text"} if self.second_text else {"image_2"})

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        """Another caption of the item."""
        return draw_texts(other_captions(pair), pair, 1)

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        assert views.image_2 is not None  # the run fills what `needs` names
        every_pair = torch.ones(len(views.image), dtype=torch.bool, device=views.image.device)
        plain = pair_losses(views, views.image_2, views.text, every_pair)
        if not self.second_text:
            return plain.mean()
        assert views.extra_text is not None
        assert views.extra_text_mask is not None
        other_caption, exists = views.extra_text[:, 0], views.extra_text_mask[:, 0]
        matches = first_extra_matches(views)
        others = [
            pair_losses(views, image, other_caption, exists, matches=matches)
            for image in (views.image, views.image_2)
        ]
        return torch.where(exists[views.local_slice], (plain + others[0] + others[1]) / 3, plain).mean()
