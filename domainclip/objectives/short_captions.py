"""Short captions: the first sentence of a caption is matched with the principal components of its image.

Legend: b pairs, d width, k rows of a block, c components.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from domainclip.data.text.sentences import split_sentences
from domainclip.data.text.training_pair import TrainingPair
from domainclip.objectives.base import Negatives, Objective, Views
from domainclip.objectives.losses.blockwise import cross_entropy
from domainclip.objectives.losses.label_matching import matching_pairs, number_equal_texts
from domainclip.objectives.losses.symmetric import symmetric_loss


@dataclass(frozen=True, kw_only=True)
class ShortCaptions(Objective):
    """½ [CE(x̂ · s/τ, I) + CE(s · x̂/τ, I)], s the first sentence of a caption: primary component matching.

    x̂ = μ + V Vᵀ (x − μ) at unit length: the images x on the first `components` principal directions V of the
    batch, μ their mean. Beside `contrastive`, which matches the whole image with the whole caption, so that a
    model that reads long captions (`long_text`) keeps its embeddings of short ones. [arXiv:2403.15378] The
    directions are held constant, because an eigenvector has no gradient where two eigenvalues are equal;
    those without variance are left out. Pairs that share a right text, or the first sentence, are not each
    other's negatives. With as many components as the batch has directions, x̂ = x. Costs a second, short text
    per pair, and a decomposition of (b, d).
    """

    citation: ClassVar[str] = "arXiv:2403.15378"
    negatives: ClassVar[Negatives] = "other_groups"
    needs: ClassVar[frozenset[str]] = frozenset({"extra_text"})

    components: Annotated[int, Field(ge=1)] = 32  # principal directions of the images that remain

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        """The first sentence of the caption that is shown."""
        return (split_sentences(pair.text) or [pair.text] if pair.text.strip() else [])[:1]

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        assert views.extra_text is not None  # the run fills what `needs` names
        assert views.extra_text_mask is not None
        # A pair without a sentence keeps its caption.
        short = torch.where(views.extra_text_mask[:, :1], views.extra_text[:, 0], views.text)
        number = number_equal_texts(short)
        right_texts, right_images = (
            partial(matching_pairs, pairs=len(short), numbers=[number], mask=mask) for mask in views.masks
        )
        projected = replace(views, image=_project(views.image, self.components), text=short)
        return symmetric_loss(projected, cross_entropy, masks=(right_texts, right_images))


def _project(image: Tensor, components: int) -> Tensor:
    """(b, d) at unit length, of what the first principal directions hold of (b, d)."""
    mean = image.mean(dim=0)
    centered = image - mean
    with torch.no_grad():
        _, singular_values, directions = torch.linalg.svd(centered, full_matrices=False)
        # Of b pairs at most b - 1 directions hold anything; any other is drawn by rounding, and so would be
        # its gradient. Rows are of unit length, so what is left of nothing is a few roundings.
        has_variance = singular_values > max(image.shape) * torch.finfo(image.dtype).eps
        directions = (directions * has_variance[:, None])[:components]
    return F.normalize(mean + centered @ directions.T @ directions, dim=-1)
