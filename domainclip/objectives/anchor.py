"""The anchor: what the base said about everything else, kept while the domain is learned.

Legend: m general sentences, b pairs, d width, k rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Objective, Views
from domainclip.objectives.losses.blockwise import mean_over_rows, toward_targets


@dataclass(frozen=True, kw_only=True)
class Anchor(Objective):
    """How far general sentences y, which the corpus does not hold, have moved from the base's own y⁰.

    embedding: 1/m Σ_j ‖y_j − y⁰_j‖²: nothing may move;
    similarity: 1/m ‖Y Yᵀ − Y⁰ Y⁰ᵀ‖²_F: all may turn together, as long as they keep what is like what;
    logit: 1/b Σ_i KL(softmax(Y⁰ x⁰_i / τ) ‖ softmax(Y x_i / τ)): the images of the batch go on choosing among
    the sentences as they did. This one holds the image tower too; τ is `temperature`, fixed, near the base's;
    x⁰ is of the whole picture, whatever train.augmentation shows.
    The texts are made of the tokenizer's words (recipe key `anchor_texts`): no general corpus is needed.
    Distillation of the base into its own adaptation. [arXiv:1606.09282]
    """

    citation: ClassVar[str] = "arXiv:1606.09282"

    space: Literal["embedding", "similarity", "logit"] = "embedding"
    temperature: Annotated[float, Field(gt=0)] = 0.01  # of the logit space

    @property
    def needs(self) -> frozenset[str]:
        """The sentences now and then; in logit space the images of then as well."""
        return frozenset(
            {"anchor_text", "base_anchor_text"} | ({"base_image"} if self.space == "logit" else set())
        )

    def __call__(self, views: Views) -> Tensor:
        """A scalar: 0 where nothing has moved; at most 4 in embedding space, nats in logit space."""
        now, base = views.anchor_text, views.base_anchor_text
        assert now is not None  # the loop fills what `needs` names
        assert base is not None
        if self.space == "logit":
            return self._choices(views, now, base)
        if self.space == "similarity":
            return (now @ now.T - base @ base.T).square().sum(-1).mean()
        return (now - base).square().sum(-1).mean()

    def _choices(self, views: Views, now: Tensor, base: Tensor) -> Tensor:
        assert views.base_image is not None
        rows, scale, then = views.local_slice, now.new_tensor(1 / self.temperature), views.base_image

        def targets(own: Tensor, _: Tensor | None) -> Tensor:
            return (scale * then[own] @ base.T).softmax(dim=1)

        crossed = mean_over_rows(toward_targets(targets), views.image[rows], now, scale, first=rows.start)
        with torch.no_grad():
            before = mean_over_rows(toward_targets(targets), then[rows], base, scale, first=rows.start)
        return crossed - before
