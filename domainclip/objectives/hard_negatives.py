"""Hard negatives: a negative counts more the more similar it is, unless it seems to be a positive.

Legend: b pairs, k rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import log
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Objective, Views
from domainclip.objectives.losses.blockwise import kernel_from_losses
from domainclip.objectives.losses.symmetric import symmetric_loss


@dataclass(frozen=True, kw_only=True)
class HardNegatives(Objective):
    """−log p_i with p_i = e^{z_ii} / (α e^{z_ii} + Σ_j w_ij v_ij e^{z_ij}), z = s/τ, mean of both directions.

    w_ij = n_i e^{β z_ij} / Σ_k v_ik e^{β z_ik} weights each of the n_i = Σ_j v_ij negatives by its hardness
    [arXiv:2301.02280]; β = 0 and α = 1 is `contrastive`. v_ij is 1, `false_weight` where the texts of i and j
    (or their images, `judged_by`) have a cosine of at least `false_above` [arXiv:2205.00656], and 0 within a
    group. `focal` γ multiplies by (1 − p_i)^γ: what is learned already counts less [arXiv:1708.02002]. The
    weights are differentiated too, as usual, so that a very easy negative is pulled a little closer. Costs a
    few more passes over each block of similarities.
    """

    citation: ClassVar[str] = "arXiv:2301.02280"
    replaces: ClassVar[str] = "contrastive"

    alpha: Annotated[float, Field(gt=0, le=1)] = 1.0  # how much the right answer counts below the line
    beta: Annotated[float, Field(ge=0)] = 0.25  # 0: all negatives count alike
    focal: Annotated[float, Field(ge=0)] = 0.0  # γ
    false_above: Annotated[float, Field(gt=-1, le=1)] | None = None  # cosine; null: none is in doubt
    false_weight: Annotated[float, Field(ge=0, lt=1)] = 0.0  # what is left of one in doubt
    judged_by: Literal["texts", "images"] = "texts"

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        judges = views.text if self.judged_by == "texts" else views.image
        kernel = kernel_from_losses(partial(self._losses, partial(self._doubt, judges)))
        return symmetric_loss(views, kernel, group=views.group)

    def _doubt(self, judges: Tensor, own: Tensor) -> Tensor | None:
        """(k, b) log v, without the groups: what a negative counts; None where all count alike."""
        if self.false_above is None:
            return None
        with torch.no_grad():
            alike = judges[own] @ judges.T >= self.false_above
            left = log(self.false_weight) if self.false_weight else -torch.inf
            return torch.zeros_like(alike, dtype=judges.dtype).masked_fill_(alike, left)

    def _losses(
        self, doubt: Callable[[Tensor], Tensor | None], logits: Tensor, own: Tensor, excluded: Tensor | None
    ) -> Tensor:
        right = logits.gather(1, own[:, None])[:, 0]
        counts = doubt(own)
        counts = torch.zeros_like(logits) if counts is None else counts
        counts = counts.scatter(1, own[:, None], -torch.inf)
        if excluded is not None:
            counts = counts.masked_fill(excluded, -torch.inf)
        wrong = _negatives(logits, counts, self.beta)
        losses = torch.logaddexp(right + log(self.alpha), wrong) - right
        if not self.focal:
            return losses
        # Never quite zero: a power below one has no slope there.
        return (-torch.expm1(-losses)).clamp_min(1e-12).pow(self.focal) * losses


def _negatives(logits: Tensor, counts: Tensor, beta: float) -> Tensor:
    """(k,) log Σ_j w_ij v_ij e^{z_ij}, with `counts` = log v; minus infinity where a row has no negative."""
    number = counts.exp().sum(dim=1)
    none = number == 0
    counts = counts.masked_fill(none[:, None], 0.0)  # keeps the slopes finite; what comes of it is not used
    hard = ((1 + beta) * logits + counts).logsumexp(dim=1)
    whole = (beta * logits + counts).logsumexp(dim=1)
    return (number.clamp_min(1e-12).log() + hard - whole).masked_fill(none, -torch.inf)
