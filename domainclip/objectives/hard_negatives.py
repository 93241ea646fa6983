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
    judged_by: Literal["texts", "images"] = "texts"  # which cosines decide that a negative is in doubt

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        embeddings = views.text if self.judged_by == "texts" else views.image
        kernel = kernel_from_losses(partial(self._losses, partial(self._log_false_weight, embeddings)))
        return symmetric_loss(views, kernel, masks=views.masks)

    def _log_false_weight(self, embeddings: Tensor, target: Tensor) -> Tensor | None:
        """(k, b) log v, without the groups: what a negative counts; None where all count alike."""
        if self.false_above is None:
            return None
        with torch.no_grad():
            similar = embeddings[target] @ embeddings.T >= self.false_above
            log_left = log(self.false_weight) if self.false_weight else -torch.inf
            return torch.zeros_like(similar, dtype=embeddings.dtype).masked_fill_(similar, log_left)

    def _losses(
        self,
        log_weight: Callable[[Tensor], Tensor | None],
        logits: Tensor,
        target: Tensor,
        excluded: Tensor | None,
    ) -> Tensor:
        positive = logits.gather(1, target[:, None])[:, 0]
        log_weights = log_weight(target)
        log_weights = torch.zeros_like(logits) if log_weights is None else log_weights
        log_weights = log_weights.scatter(1, target[:, None], -torch.inf)
        if excluded is not None:
            log_weights = log_weights.masked_fill(excluded, -torch.inf)
        negatives = _negatives(logits, log_weights, self.beta)
        losses = torch.logaddexp(positive + log(self.alpha), negatives) - positive
        if not self.focal:
            return losses
        # Never quite zero: a power below one has no slope there.
        return (-torch.expm1(-losses)).clamp_min(1e-12).pow(self.focal) * losses


def _negatives(logits: Tensor, log_weights: Tensor, beta: float) -> Tensor:
    """(k,) log Σ_j w_ij v_ij e^{z_ij}, with `counts` = log v; minus infinity where a row has no negative."""
    number = log_weights.exp().sum(dim=1)
    without = number == 0
    # So that the gradients stay finite; the result of these rows is replaced below.
    log_weights = log_weights.masked_fill(without[:, None], 0.0)
    weighted = ((1 + beta) * logits + log_weights).logsumexp(dim=1)
    normaliser = (beta * logits + log_weights).logsumexp(dim=1)
    return (number.clamp_min(1e-12).log() + weighted - normaliser).masked_fill(without, -torch.inf)
