"""The sigmoid objective: every image–text combination is a yes-or-no question of its own.

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
class Sigmoid:
    """−1/b Σ_ij log σ(z_ij (t s_ij + β)), z = +1 on the diagonal and −1 elsewhere.

    Combinations within a group are neither yes nor no, and are left out. [arXiv:2303.15343]
    """

    citation: ClassVar[str] = "arXiv:2303.15343"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair."""
        logits = views.scale * views.image @ views.text.T  # (b, b)
        if views.bias is not None:
            logits = logits + views.bias
        own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        terms = -F.logsigmoid(torch.where(own, logits, -logits))
        if views.group is not None:
            same = views.group[:, None] == views.group[None, :]
            terms = terms.masked_fill(same & ~own, 0.0)
        return terms.sum() / len(logits)
