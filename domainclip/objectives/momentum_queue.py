"""Momentum queue: pairs of earlier batches are negatives too, encoded by a moving average of the weights.

Legend: b pairs, q pairs of the queue, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip.data.batching.matches import RowMask
from domainclip.objectives.base import Negatives, Objective, ObjectiveInputs, Sizes, Views
from domainclip.objectives.losses import queue
from domainclip.objectives.losses.blockwise import cross_entropy, mean_over_rows


@dataclass(frozen=True, kw_only=True)
class MomentumQueue(Objective):
    """½ [CE(x_i → ŷ_i among ŷ_1…ŷ_b and Q_y) + CE(y_i → x̂_i among x̂_1…x̂_b and Q_x)]. [arXiv:2103.06561]

    x̂ and ŷ are the embeddings of the batch by a moving average of the weights, w̄ ← m w̄ + (1 − m) w after each
    step, and have no gradient; Q_x and Q_y hold those of the `size` newest pairs of earlier steps
    [arXiv:1911.05722]. A small batch thus has many negatives, at the cost of one more forward pass without
    gradient. Differs from BriVL in the candidates, which include the other pairs of the batch, as in
    [arXiv:2107.07651], so that the first step has some; and in the temperature, which is that of the model. A
    pair of the queue that shares a right text with the row is not its negative: neither is the item itself,
    an epoch ago. The average is not saved with the model; the queue begins empty and lies in each checkpoint.
    """

    citation: ClassVar[str] = "arXiv:2103.06561"
    negatives: ClassVar[Negatives] = "other_groups"
    needs: ClassVar[frozenset[str]] = frozenset({"momentum_image", "momentum_text"})

    size: Annotated[int, Field(ge=1)] = 4096  # q, pairs of earlier steps
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99  # m, the share of the average that a step leaves

    @property
    def inputs(self) -> ObjectiveInputs:
        """The moving average of the weights."""
        return ObjectiveInputs(momentum=self.momentum)

    def initial_memory(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """An empty queue."""
        return queue.empty_queue(sizes.width, "image", "text")

    def update_memory(self, views: Views) -> dict[str, Tensor]:
        """The queue with the pairs of the batch in front."""
        assert views.momentum_image is not None  # the run fills what `needs` names
        assert views.momentum_text is not None
        return queue.push(views, self.size, image=views.momentum_image, text=views.momentum_text)

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        assert views.momentum_image is not None
        assert views.momentum_text is not None
        images = torch.cat([views.momentum_image, queue.queued(views, "image")])
        texts = torch.cat([views.momentum_text, queue.queued(views, "text")])
        matches, rows = queue.right_in_queue(views), views.local_slice
        sides: tuple[tuple[Tensor, Tensor, RowMask | None], ...] = (
            (views.image, texts, None if matches is None else matches.right_texts),
            (views.text, images, None if matches is None else matches.right_images),
        )
        losses = [
            mean_over_rows(cross_entropy, own[rows], candidates, views.scale, mask=mask, first=rows.start)
            for own, candidates, mask in sides
        ]
        return torch.stack(losses).mean()
