"""Three towers: a third, frozen image tower pulls both towers towards its embeddings.

Legend: b pairs, d embedding width, t width of the third tower.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Negatives, Objective, ObjectiveInputs, Sizes, ThirdTower, Views
from domainclip.objectives.losses.blockwise import cross_entropy
from domainclip.objectives.losses.symmetric import symmetric_loss


@dataclass(frozen=True, kw_only=True)
class ThreeTowers(Objective):
    """½ [L(x A, z A') + L(y B, z B')], z those of the third tower, A and B learnable. [arXiv:2305.16999]

    L is the contrastive loss, with its mask, at the same temperature. Beside `contrastive`, which is L(x,
    y), a weight of 2 gives three times the mean of the three losses in the paper. The image tower may learn,
    which it may not under `locked_image`, and is still held by what was known before. The third tower is the
    image tower of the base, or a better image model. It runs once per image, whole whatever
    train.augmentation shows, and is removed with the heads: the saved model is an ordinary one. Goes with
    every strategy that shows one image per item; within `matryoshka` the first dimensions go through the
    first rows of their head.
    """

    citation: ClassVar[str] = "arXiv:2305.16999"
    negatives: ClassVar[Negatives] = "other_groups"
    needs: ClassVar[frozenset[str]] = frozenset({"third_tower"})
    models: ClassVar[tuple[str, ...]] = ("third_tower",)

    third_tower: str | None = None  # an image model, as a folder or Hub id; null: the base's own image tower
    rate: Annotated[float, Field(gt=0)] = 10.0  # factor on the learning rate of the heads

    @property
    def inputs(self) -> ObjectiveInputs:
        """The third tower."""
        return ObjectiveInputs(third_tower=ThirdTower(self.third_tower))

    @property
    def own_learning_rate(self) -> float:
        """Factor on the learning rate of the heads."""
        return self.rate

    def initial_weights(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """`heads` (2, d + t, d), for images and for texts: projections of the own and the third embedding.

        The identity, and for the side of another model drawn from the seed.
        """
        identity = torch.eye(sizes.width)
        if self.third_tower is None:
            return {"heads": torch.stack([torch.cat([identity, identity])] * 2)}
        draw = torch.Generator().manual_seed(seed)
        third = sizes.third_tower
        others = torch.randn(2, third, sizes.width, generator=draw) * third**-0.5
        return {"heads": torch.stack([torch.cat([identity, other]) for other in others])}

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        assert views.third_tower is not None
        t, heads = views.third_tower.shape[-1], views.own_weights["heads"]
        right_texts, right_images = views.masks
        # The third tower encodes images too, so only the second loss compares images with texts.
        sides = (
            (views.image, heads[0], (views.pair_mask, views.pair_mask)),
            (views.text, heads[1], (right_images, right_texts)),
        )
        losses = []
        for rows, head, masks in sides:
            projected = F.normalize(rows @ head[: rows.shape[-1]], dim=-1)
            third = F.normalize(views.third_tower @ head[-t:], dim=-1)
            losses.append(
                symmetric_loss(replace(views, image=projected, text=third), cross_entropy, masks=masks)
            )
        return torch.stack(losses).mean()
