"""Null image: texts that describe nothing visible belong to one learned vector, and to no image.

Legend: b pairs, k further texts of a pair, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from domainclip.data.text.related_texts import column_texts, distinct_from_captions, draw_texts
from domainclip.data.text.training_pair import TrainingPair
from domainclip.objectives.base import Negatives, Objective, Sizes, Views


@dataclass(frozen=True, kw_only=True)
class NullImage(Objective):
    """1/b Σ_i [CE(y_i → x_i among all images and u) + mean_k CE(n_ik → u among all images and u)].

    n_ik are texts of the item that describe nothing visible, from the column `column` of its meta ("thank you
    for the referral", the history of an object); u is a learnable vector, to which they belong. A pair
    without such a text has the first term alone. The visualness objective [arXiv:2305.10434], where the null
    image is one fixed image and most texts are labelled automatically; here the corpus names them,
    and the vector is not saved with the model. Beside a contrastive objective; cost: `per_pair` texts.
    """

    citation: ClassVar[str] = "arXiv:2305.10434"
    negatives: ClassVar[Negatives] = "none"  # u is a negative of every caption
    needs: ClassVar[frozenset[str]] = frozenset({"extra_text"})

    column: str  # of the item's meta: one text, or a list
    per_pair: Annotated[int, Field(ge=1, le=16)] = 1  # such texts of a pair
    rate: Annotated[float, Field(gt=0)] = 10.0  # factor on the learning rate of u

    @property
    def own_learning_rate(self) -> float:
        """Factor on the learning rate of u."""
        return self.rate

    def initial_weights(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """`null` (d,), a random direction."""
        draw = torch.Generator().manual_seed(seed)
        return {"null": F.normalize(torch.randn(sizes.width, generator=draw), dim=0)}

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        """Some texts of the column, those drawn by the pair's seed."""
        return distinct_from_captions(draw_texts(column_texts(pair, self.column), pair), pair, self.per_pair)

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        assert views.extra_text is not None  # the run fills what `needs` names
        assert views.extra_text_mask is not None
        rows, b = views.local_slice, len(views.image)
        null = F.normalize(views.own_weights["null"][: views.image.shape[-1]].to(views.image.dtype), dim=0)
        candidates = torch.cat([views.image, null[None]])  # (b + 1, d)
        index = torch.arange(rows.start, rows.stop, device=null.device)
        captions = views.scale * views.text[rows] @ candidates.T
        _, right_images = views.masks
        if right_images is not None:
            others = F.pad(right_images(index), (0, 1)).scatter(1, index[:, None], False)
            captions = captions.masked_fill(others, -torch.inf)
        visible = F.cross_entropy(captions, index, reduction="none")
        texts, exists = views.extra_text[rows], views.extra_text_mask[rows]  # (r, k, d) and (r, k)
        logits = views.scale * texts @ candidates.T  # (r, k, b + 1)
        nats = (logits.logsumexp(dim=-1) - logits[..., b]).masked_fill(~exists, 0.0)
        return (visible + nats.sum(dim=1) / exists.sum(dim=1).clamp_min(1)).mean()
