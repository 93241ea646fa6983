"""Image self-supervision: two views of one image are positives of each other.

Legend: b pairs, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Negatives, Objective, Taught, Views
from domainclip.objectives.losses.extra_texts import nt_xent


@dataclass(frozen=True, kw_only=True)
class ImageSelfSupervision(Objective):
    """NT-Xent: 1/b Σ_i ½ [CE(x_i → x'_i) + CE(x'_i → x_i)] among both views x, x' of all images.

    x' is a strongly augmented view [arXiv:2002.05709]. With a contrastive loss at weight 1 this is SLIP, at
    the temperature of its code. Differs from it in the head: there two layers of 4096 and one of 256 follow
    the tower, here the shared space itself is adapted; and in the views: there two strong ones beside the
    image, here the image and one. Images of one group are never each other's negatives. For corpora with many
    images and few words. Cost: every image is encoded twice. [arXiv:2112.12750]
    """

    citation: ClassVar[str] = "arXiv:2112.12750"
    negatives: ClassVar[Negatives] = "other_groups"
    needs: ClassVar[frozenset[str]] = frozenset({"image_2"})
    teaches: ClassVar[frozenset[Taught]] = frozenset({"image"})

    # The cosines are divided by it; lower: the nearest images count more.
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.1

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        assert views.image_2 is not None  # the run fills what `needs` names
        every_pair = torch.ones(len(views.image), dtype=torch.bool, device=views.image.device)
        return nt_xent(views, views.image, views.image_2, every_pair, self.temperature).mean()
