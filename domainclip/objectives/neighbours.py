"""Neighbours: the most similar text of earlier batches is a second positive of an image.

Legend: b pairs, q texts of the queue, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip.data.batching.matches import Matches, RowMask
from domainclip.objectives.base import Negatives, Objective, Sizes, Taught, Views
from domainclip.objectives.losses import blockwise, queue
from domainclip.objectives.losses.extra_texts import (
    cross_entropy_among,
    is_local,
    matching_pair_mask,
)


@dataclass(frozen=True, kw_only=True)
class Neighbours(Objective):
    """1/b Σ_i L(x_i, n_i), beside `contrastive`: n_i is the text of a queue that is most similar to y_i.

    L is the contrastive loss of a pair in both directions, its candidates the neighbours of the other pairs;
    equal ones are not negatives. The queue holds the text embeddings of the `size` newest pairs of earlier
    steps, without gradient [arXiv:2110.05208, nearest-neighbour supervision]. Differs from DeCLIP: a text
    that is right for the pair anyway (of its group, or its own caption an epoch ago) is no neighbour, since
    in a corpus smaller than the queue every nearest text would be the caption itself. In the first step the
    queue is empty and the loss is 0. Captions of a narrow domain are all alike, so that a neighbour may
    describe something else: `min_cosine` leaves out what is not similar enough.
    """

    citation: ClassVar[str] = "arXiv:2110.05208"
    negatives: ClassVar[Negatives] = "other_groups"
    teaches: ClassVar[frozenset[Taught]] = frozenset({"image"})

    size: Annotated[int, Field(ge=1)] = 4096  # q, texts of earlier steps
    min_cosine: Annotated[float, Field(ge=-1, lt=1)] = -1.0  # between a text and its neighbour; -1: any

    def initial_memory(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """An empty queue."""
        return queue.empty_queue(sizes.width, "text")

    def update_memory(self, views: Views) -> dict[str, Tensor]:
        """The queue with the texts of the batch in front."""
        return queue.push(views, self.size, text=views.text)

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        texts = queue.queued(views, "text")
        if not len(texts):
            return views.image.sum() * 0
        nearest, cosine = self._nearest(views, texts)
        neighbour, masks = texts[nearest], self._masks(views, nearest)
        pairs = (cosine > self.min_cosine).nonzero().flatten()
        local = pairs[is_local(pairs, views.local_slice)]
        losses = views.image.new_zeros(views.local_slice.stop - views.local_slice.start)
        sides = ((views.image, neighbour, masks[0]), (neighbour, views.image, masks[1]))
        for rows, candidates, others in sides:
            excluded = matching_pair_mask(views, local, pairs, others)
            nats = cross_entropy_among(
                rows[local], candidates[local], candidates[pairs], excluded, views.scale
            )
            losses = losses.index_add(0, local - views.local_slice.start, nats / 2)
        return losses.mean()

    def _masks(self, views: Views, nearest: Tensor) -> tuple[RowMask, RowMask]:
        """The neighbours that are right for an image, and the images that a neighbour is right for."""
        if views.matches is None:
            return _shared(nearest), _shared(nearest)
        keys = queue.queue_keys(views.memory).map(lambda key: key[nearest])
        matches = Matches(views.matches.images, keys)
        return _shared(nearest, matches.right_texts), _shared(nearest, matches.right_images)

    @torch.no_grad()
    def _nearest(self, views: Views, texts: Tensor) -> tuple[Tensor, Tensor]:
        """(b,) the place in the queue of each text's neighbour, and their cosine; -2 where there is none."""
        right = None
        if views.matches is not None:
            right = Matches(views.matches.images, queue.queue_keys(views.memory)).right_texts
        every_pair = torch.arange(len(views.text), device=texts.device)
        nearest, cosines = [], []
        for at in every_pair.split(max(1, blockwise.MAX_LOGITS // len(texts))):
            block = views.text[at] @ texts.T
            if right is not None:
                block = block.masked_fill(right(at), -2.0)
            best = block.max(dim=1)
            nearest.append(best.indices)
            cosines.append(best.values)
        return torch.cat(nearest), torch.cat(cosines)


def _shared(nearest: Tensor, right: RowMask | None = None) -> RowMask:
    """The pairs (k, b) that have the neighbour of a pair as theirs, and those that `right` returns."""

    def excluded(at: Tensor) -> Tensor:
        same = nearest[at][:, None] == nearest
        return same if right is None else same | right(at)

    return excluded
