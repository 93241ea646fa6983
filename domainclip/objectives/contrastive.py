"""The contrastive objective: each image picks its text out of the batch, and each text its image.

Legend: b pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

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
        """A scalar: nats per pair. ln b is chance, when no group repeats."""
        logits = views.scale * views.image @ views.text.T  # (b, b)
        if views.group is not None:
            logits = logits.masked_fill(same_group(views.group), -torch.inf)
        target = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def same_group(group: Tensor) -> Tensor:
    """(b, b) bool: another pair of the same group; never the pair itself."""
    same = group[:, None] == group[None, :]
    return same & ~torch.eye(len(group), dtype=torch.bool, device=group.device)
