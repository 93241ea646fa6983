"""Noise-robust contrast: a caption that seems to belong to another picture is believed less.

Legend: b pairs, k rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Objective, Views
from domainclip.objectives.losses.blockwise import per_row, softmax, toward_targets, weighted_mean
from domainclip.objectives.losses.gaussian_mixture import clean
from domainclip.objectives.losses.symmetric import both_ways


@dataclass(frozen=True, kw_only=True)
class NoiseRobust(Objective):
    """`contrastive`, where each pair is believed as far as its loss looks like that of a clean one.

    Two normal distributions are fitted to the losses of the batch, over all processes; ε_i is the probability
    that pair i is of the kind with the larger mean [arXiv:2409.09582]. Then ω_i = `strength` · ε_i, and
    smooth: the target is 1 − ω_i for its own text, and ω_i is shared by all others;
    weigh: the pair's loss counts 1 − ω_i.
    A pretrained base knows from the first step which captions look wrong. A clean corpus loses a little:
    where all is clean, the harder half is taken to be noise. Costs the similarities of the whole batch once
    more on every process, without gradient.
    """

    citation: ClassVar[str] = "arXiv:2409.09582"
    replaces: ClassVar[str] = "contrastive"

    strength: Annotated[float, Field(ge=0, le=1)] = 0.5  # how far the surest noise is disbelieved
    mode: Literal["smooth", "weigh"] = "smooth"

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        doubt = self.strength * (1 - clean(_losses(views)))
        if self.mode == "weigh":
            return both_ways(views, weighted_mean(softmax, 1 - doubt), group=views.group)

        def targets(own: Tensor, excluded: Tensor | None) -> Tensor:
            others = torch.ones(len(own), len(doubt), dtype=doubt.dtype, device=doubt.device)
            if excluded is not None:
                others.masked_fill_(excluded, 0.0)
            others.scatter_(1, own[:, None], 0.0)
            number = others.sum(dim=1)
            left = doubt[own] * (number > 0)
            others *= (left / number.clamp_min(1))[:, None]
            return others.scatter_(1, own[:, None], (1 - left)[:, None])

        return both_ways(views, toward_targets(targets), group=views.group)


def _losses(views: Views) -> Tensor:
    """(b,) the plain loss of every pair of the batch, without gradient: all processes see the same."""
    sides = ((views.image, views.text), (views.text, views.image))
    found = [per_row(softmax, one, other, views.scale, views.group) for one, other in sides]
    return torch.stack(found).mean(dim=0)
