"""Caption diversity: what an image shows for a text is mixed of several vectors, weighted by the text.

Legend: b pairs, k mixture vectors of an image, n patches, d width, r rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Negatives, Objective, Sizes, Views
from domainclip.objectives.losses.score_blocks import mean_cross_entropy


@dataclass(frozen=True, kw_only=True)
class CaptionDiversity(Objective):
    """½ [CE(s z_ij · y_j, I) + CE(its transpose, I)], z_ij ∝ x_i + Σ_k softmax_k(s_m y_j · A m_ik) B m_ik.

    The image is compared with each text as the text asks: m_i1…m_ik are mixtures of its patches, each by the
    softmax over them of a learned query; A and B are learned. B is 0 at the start, when the loss is
    `contrastive`. Two captions of one image need not share a vector [arXiv:2405.00740]. Beside
    `contrastive`, which trains x_i alone: the adapted model is measured and used by x_i, since nothing else
    can be stored for search. Differs from Llip there, where the mixed vector is used, at a cost for each pair
    of an image and a text; in the mixture tokens, which are there inputs of the image tower, and here read
    its last patches; and in the loss, there of sigmoids. Costs b² k² products, one block of rows at a time.
    """

    citation: ClassVar[str] = "arXiv:2405.00740"
    negatives: ClassVar[Negatives] = "other_groups"
    needs: ClassVar[frozenset[str]] = frozenset({"image_tokens"})

    count: Annotated[int, Field(ge=1, le=64)] = 8  # k
    sharpness: Annotated[float, Field(gt=0)] = 5.0  # s_m
    rate: Annotated[float, Field(gt=0)] = 10.0  # factor on the learning rate of the queries, A and B

    @property
    def own_learning_rate(self) -> float:
        """Factor on the learning rate of the queries, A and B."""
        return self.rate

    def initial_weights(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """`queries` (k, d), random; `key_map` (d, d), A, the identity; `value_map` (d, d), B, zero."""
        d, draw = sizes.width, torch.Generator().manual_seed(seed)
        queries = torch.randn(self.count, d, generator=draw)
        return {"queries": queries, "key_map": torch.eye(d), "value_map": torch.zeros(d, d)}

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        assert views.image_tokens is not None  # the run fills what `needs` names
        d, tokens = views.image.shape[-1], views.image_tokens
        own = {name: weight[..., :d].to(tokens.dtype) for name, weight in views.own_weights.items()}
        shares = (tokens @ own["queries"].T).softmax(dim=1)  # (b, n, k)
        mixtures = shares.transpose(1, 2) @ tokens  # (b, k, d)
        keys, values = mixtures @ own["key_map"][:d].T, mixtures @ own["value_map"][:d].T
        parts = torch.cat([views.image[:, None], values], dim=1)  # (b, 1 + k, d)
        gram = parts @ parts.transpose(1, 2)  # (b, 1 + k, 1 + k)

        def cosines(images: Tensor, texts: Tensor) -> Tensor:
            """(i, j) of z_ij and y_j, for those of the batch."""
            text = views.text[texts]
            share = (self.sharpness * torch.einsum("ikd,jd->ijk", keys[images], text)).softmax(dim=-1)
            weight = torch.cat([torch.ones_like(share[..., :1]), share], dim=-1)
            product = (weight * torch.einsum("ikd,jd->ijk", parts[images], text)).sum(dim=-1)
            length = (torch.einsum("ijk,ikl->ijl", weight, gram[images]) * weight).sum(dim=-1)
            return product / length.clamp_min(1e-12).sqrt()

        every_pair = torch.arange(len(views.image), device=tokens.device)
        right_texts, right_images = views.masks
        to_text = mean_cross_entropy(
            views, lambda at: views.scale * cosines(at, every_pair), right_texts, 4 * (1 + self.count)
        )
        to_image = mean_cross_entropy(
            views, lambda at: views.scale * cosines(every_pair, at).T, right_images, 4 * (1 + self.count)
        )
        return (to_text + to_image) / 2
