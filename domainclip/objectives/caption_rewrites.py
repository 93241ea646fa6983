"""Caption rewrites: a caption and its rewrite are both positives, weighted by how similar they are.

Legend: b pairs, r those of this process, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip.data.text.related_texts import caption_language, draw_texts, other_captions, rewrites
from domainclip.data.text.training_pair import TrainingPair
from domainclip.objectives.base import Objective, Views
from domainclip.objectives.losses.extra_texts import first_extra_matches, pair_losses


@dataclass(frozen=True, kw_only=True)
class CaptionRewrites(Objective):
    """1/b Σ_i w_i [(1 − share) u_i L(x_i, y_i) + share v_i L(x_i, ỹ_i)], in the place of `contrastive`.

    L is the contrastive loss of a pair, y its caption, ỹ one rewrite of it, drawn in each epoch from the
    columns that the card names as captions.rewrites; a pair without one has L(x, y) alone. The caption
    sampling of the card shows one or the other [arXiv:2305.20088]; here both are positives in one step. With
    `agreement` γ, a pair whose caption and rewrite are less similar than the mean H of the batch counts less:
    w = min(1, e^{γ (y·ỹ − H)}), and its u = e^{γ (x·y − H_y)}, v = e^{γ (x·ỹ − H_ỹ)}; else all are 1. H is a
    running mean in the paper, and a mean over the batch here, because an objective has no state. Cost: one
    further text per pair. [arXiv:2308.08428]
    """

    citation: ClassVar[str] = "arXiv:2308.08428"
    replaces: ClassVar[str] = "contrastive"
    needs: ClassVar[frozenset[str]] = frozenset({"extra_text"})

    # The share of the loss that the rewrite has; the caption has the rest.
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    agreement: Annotated[float, Field(ge=0, le=20)] = 0.0  # γ; the paper takes 2

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        """One rewrite, in the same language where there is one; where a rewrite is shown, a caption."""
        texts, language = rewrites(pair), caption_language(pair)
        if pair.text in texts:
            return draw_texts(other_captions(pair, "same_language") or other_captions(pair), pair, 1)
        same_language = [text for text, text_language in texts.items() if text_language == language]
        return draw_texts(same_language or texts, pair, 1)

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process. Without any rewrite it is the contrastive objective."""
        assert views.extra_text is not None  # the run fills what `needs` names
        assert views.extra_text_mask is not None
        rewrite, exists = views.extra_text[:, 0], views.extra_text_mask[:, 0]
        plain = pair_losses(views, views.image, views.text, torch.ones_like(exists))
        second = pair_losses(views, views.image, rewrite, exists, matches=first_extra_matches(views))
        with torch.no_grad():
            u, v = self._weights(views.image, views.text, rewrite, exists)
        local = views.local_slice
        both = (1 - self.share) * u[local] * plain + self.share * v[local] * second
        return torch.where(exists[local], both, plain).mean()

    def _weights(self, image: Tensor, text: Tensor, rewrite: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
        """(b,) and (b,): w u and w v of each pair."""
        similarity, plain, second = (
            self.agreement * _above_mean(a, b, exists)
            for a, b in ((text, rewrite), (image, text), (image, rewrite))
        )
        pair_weight = similarity.clamp_max(0).exp()
        below_mean = similarity < 0
        return pair_weight * torch.where(below_mean, plain.exp(), 1), pair_weight * torch.where(
            below_mean, second.exp(), 1
        )


def _above_mean(first: Tensor, second: Tensor, exists: Tensor) -> Tensor:
    """(b,) the cosine of each pair less the mean over the pairs that exist."""
    cosines = (first * second).sum(dim=-1)
    return cosines - (cosines * exists).sum() / exists.sum().clamp_min(1)
