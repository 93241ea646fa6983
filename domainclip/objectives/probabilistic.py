"""Probabilistic embeddings: an image or a text is a normal distribution, compared by Wasserstein distance.

Legend: b pairs, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Objective, Sizes, Views
from domainclip.objectives.losses.blockwise import cross_entropy, mean_over_rows

_SPREAD = 0.1  # of the log variances at the start


@dataclass(frozen=True, kw_only=True)
class Probabilistic(Objective):
    """½ [CE(z, T) + CE(zᵀ, T)] with z_ij = s (1 − W²_ij / 2), W²_ij = ‖x_i − y_j‖² + ‖σ(x_i) − σ(y_j)‖².

    W is the 2-Wasserstein distance of two normal distributions with independent dimensions, whose means are
    the embeddings, and whose deviations σ(v) = exp(½ (A v + a)) are learnable functions of them, one of
    images and one of texts. [arXiv:2210.05335] A text that fits many images may have other deviations than
    an exact one. At the start all deviations are `deviation`, but for a twentieth of it, which A draws at
    random: between equal ones the distance has no gradient, and none would ever learn. Differs from MAP in
    the head, there attention over all tokens and here linear in the embedding, and in the form, there a
    distance with learnable factor and offset, here the scale of the model. The heads are not saved: the
    adapted model is used by its means alone. Costs no further encoding.
    """

    citation: ClassVar[str] = "arXiv:2210.05335"
    replaces: ClassVar[str] = "contrastive"

    deviation: Annotated[float, Field(gt=0, le=1)] = 0.05  # σ of each dimension at the start
    rate: Annotated[float, Field(gt=0)] = 10.0  # factor on the learning rate of the heads

    @property
    def own_learning_rate(self) -> float:
        """Factor on the learning rate of the heads."""
        return self.rate

    def initial_weights(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """For images and texts, `directions` (2, d, d) and `offsets` (2, d): log variances."""
        d, draw = sizes.width, torch.Generator().manual_seed(seed)
        offset = 2 * torch.tensor(self.deviation).log()
        # For embeddings of unit length, A v has the deviation of its entries.
        directions = _SPREAD * torch.randn(2, d, d, generator=draw)
        return {"directions": directions, "offsets": offset.expand(2, d).clone()}

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        images, texts = (self._extended(views, side) for side in (0, 1))
        rows, (right_texts, right_images) = views.local_slice, views.masks
        losses = [
            mean_over_rows(cross_entropy, own[rows], others, views.scale, mask=mask, first=rows.start)
            for own, others, mask in ((images, texts, right_texts), (texts, images, right_images))
        ]
        return torch.stack(losses).mean()

    def _extended(self, views: Views, side: int) -> Tensor:
        """(b, 2 d + 2) rows whose products are 1 − W²/2: x · y + σ · σ' − ½ ‖σ‖² − ½ ‖σ'‖²."""
        mean = (views.image, views.text)[side]
        d = mean.shape[-1]
        direction = views.own_weights["directions"][side, :d, :d].to(mean.dtype)
        deviation = ((mean @ direction + views.own_weights["offsets"][side, :d].to(mean.dtype)) / 2).exp()
        half = -deviation.square().sum(dim=-1, keepdim=True) / 2
        one = torch.ones_like(half)
        # The own half stands where the other side has a one.
        return torch.cat([mean, deviation, *((half, one) if side == 0 else (one, half))], dim=-1)
