"""Noise-robust contrast: a caption that seems to belong to another image counts less.

Legend: b pairs, k rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Objective, Views
from domainclip.objectives.losses.blockwise import (
    cross_entropy,
    loss_per_row,
    soft_cross_entropy,
    weighted_kernel,
)
from domainclip.objectives.losses.gaussian_mixture import clean_probability
from domainclip.objectives.losses.symmetric import symmetric_loss


@dataclass(frozen=True, kw_only=True)
class NoiseRobust(Objective):
    """`contrastive`, where each pair counts by the probability that its loss is that of a clean pair.

    Two normal distributions are fitted to the losses of the batch, over all processes; ε_i is the probability
    that pair i belongs to the one with the larger mean [arXiv:2409.09582]. Then ω_i = `strength` · ε_i, and
    smooth: the target is 1 − ω_i for the text of the pair, and ω_i is shared by all others;
    weigh: the loss of the pair counts 1 − ω_i.
    A pretrained base recognises wrong captions from the first step. A clean corpus loses a little: the harder
    half is taken for noise. Costs the similarities of the whole batch once more on every process, without
    gradient.
    """

    citation: ClassVar[str] = "arXiv:2409.09582"
    replaces: ClassVar[str] = "contrastive"

    strength: Annotated[float, Field(ge=0, le=1)] = 0.5  # how far the surest noise is disbelieved
    # What is done with a pair that may be wrong: a softer target, or a lower weight.
    mode: Literal["smooth", "weigh"] = "smooth"

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        doubt = self.strength * (1 - clean_probability(_losses(views)))
        if self.mode == "weigh":
            return symmetric_loss(views, weighted_kernel(cross_entropy, 1 - doubt), masks=views.masks)

        def targets(target: Tensor, excluded: Tensor | None) -> Tensor:
            others = torch.ones(len(target), len(doubt), dtype=doubt.dtype, device=doubt.device)
            if excluded is not None:
                others.masked_fill_(excluded, 0.0)
            others.scatter_(1, target[:, None], 0.0)
            number = others.sum(dim=1)
            share = doubt[target] * (number > 0)
            others *= (share / number.clamp_min(1))[:, None]
            return others.scatter_(1, target[:, None], (1 - share)[:, None])

        return symmetric_loss(views, soft_cross_entropy(targets), masks=views.masks)


def _losses(views: Views) -> Tensor:
    """(b,) the plain loss of every pair of the batch, without gradient: all processes see the same."""
    (to_text, to_image), image, text = views.masks, views.image, views.text
    sides = ((image, text, to_text), (text, image, to_image))
    losses = [
        loss_per_row(cross_entropy, queries, candidates, views.scale, mask)
        for queries, candidates, mask in sides
    ]
    return torch.stack(losses).mean(dim=0)
