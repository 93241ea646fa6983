"""The contrastive objective: each image picks its text out of the batch, and each text its image.

Legend: b pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from domainclip.blocks import mean_over_rows, softmax
from domainclip.contracts import Views


@dataclass(frozen=True, kw_only=True)
class Contrastive:
    """½ [CE(s/τ, I) + CE(sᵀ/τ, I)], where pairs of one group leave each other's denominators.

    With s_ij = x_i · y_j. Two X-rays with the same report would otherwise be pushed apart for being equal.
    [arXiv:2103.00020]
    """

    citation: ClassVar[str] = "arXiv:2103.00020"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process. ln b is chance, when no group repeats."""
        rows = views.own
        sides = ((views.image, views.text), (views.text, views.image))
        losses = [
            mean_over_rows(softmax, one[rows], other, views.scale, group=views.group, first=rows.start)
            for one, other in sides
        ]
        return torch.stack(losses).mean()
