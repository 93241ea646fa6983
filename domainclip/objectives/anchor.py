"""Anchor: the base's embeddings of general-domain texts stay while the domain is learned.

Legend: m general sentences, b pairs, d width, k rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Objective, Taught, Views
from domainclip.objectives.losses.blockwise import mean_over_rows, soft_cross_entropy


@dataclass(frozen=True, kw_only=True)
class Anchor(Objective):
    """How far general-domain texts y, outside the corpus, have moved from the base's embeddings y⁰.


    embedding: 1/m Σ_j ‖y_j − y⁰_j‖²: nothing may move;
    similarity: 1/m ‖Y Yᵀ − Y⁰ Y⁰ᵀ‖²_F: all may rotate together, as long as their similarities stay;
    logit: 1/b Σ_i KL(softmax(Y⁰ x⁰_i / τ) ‖ softmax(Y x_i / τ)): the images of the batch keep their
    distribution over the texts. This one holds the image tower too; τ is `temperature`, fixed, near that of
    the base; x⁰ is the embedding of the whole image, whatever train.augmentation shows.
    The texts are made of the tokenizer's words (recipe key `anchor_texts`), so no general corpus is needed.
    Distillation of the base into its adapted model. [arXiv:1606.09282]
    """

    citation: ClassVar[str] = "arXiv:1606.09282"

    space: Literal["embedding", "similarity", "logit"] = "embedding"  # what is compared with the base
    temperature: Annotated[float, Field(gt=0)] = 0.01  # of the logit space

    @property
    def needs(self) -> frozenset[str]:
        """The texts under the model and under the base; in logit space the images under the base as well."""
        return frozenset(
            {"anchor_text", "base_anchor_text"} | ({"base_image"} if self.space == "logit" else set())
        )

    @property
    def teaches(self) -> frozenset[Taught]:
        """The text tower; in logit space the images under the model as well."""
        return frozenset({"image", "text"} if self.space == "logit" else {"text"})

    def __call__(self, views: Views) -> Tensor:
        """A scalar: 0 where nothing has moved; at most 4 in embedding space, nats in logit space."""
        texts, base_texts = views.anchor_text, views.base_anchor_text
        assert texts is not None  # the run fills what `needs` names
        assert base_texts is not None
        if self.space == "logit":
            return self._logit_divergence(views, texts, base_texts)
        if self.space == "similarity":
            return (texts @ texts.T - base_texts @ base_texts.T).square().sum(-1).mean()
        return (texts - base_texts).square().sum(-1).mean()

    def _logit_divergence(self, views: Views, texts: Tensor, base_texts: Tensor) -> Tensor:
        assert views.base_image is not None
        rows, scale, base_image = views.local_slice, texts.new_tensor(1 / self.temperature), views.base_image

        def targets(target: Tensor, _: Tensor | None) -> Tensor:
            return (scale * base_image[target] @ base_texts.T).softmax(dim=1)

        cross = mean_over_rows(soft_cross_entropy(targets), views.image[rows], texts, scale, first=rows.start)
        with torch.no_grad():
            base_entropy = mean_over_rows(
                soft_cross_entropy(targets), base_image[rows], base_texts, scale, first=rows.start
            )
        return cross - base_entropy
