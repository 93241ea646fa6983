"""Image anchor: the base's similarities of general images and texts stay while the domain is learned.

Legend: n general images, m general texts, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Objective, Views


@dataclass(frozen=True, kw_only=True)
class ImageAnchor(Objective):
    """½ [1/n Σ_i KL(softmax(s⁰_i·/τ) ‖ softmax(s_i·/τ)) + 1/m Σ_j KL(softmax(s⁰_·j/τ) ‖ softmax(s_·j/τ))].

    s_ij = x_i · y_j are the similarities of general images and general texts, which need not match, and s⁰_ij
    those by the base. The distribution of each image over the texts, and of each text over the images, stays
    that of the base: the alignment of both towers is held outside the domain, where `anchor` holds the texts
    alone. The images are those of the folder `anchor_images.path`, unlabelled, or generated ones; the texts
    are those of `anchor_texts`. [arXiv:2303.06628]
    """

    citation: ClassVar[str] = "arXiv:2303.06628"
    needs: ClassVar[frozenset[str]] = frozenset(
        {"anchor_text", "base_anchor_text", "anchor_image", "base_anchor_image"}
    )

    temperature: Annotated[float, Field(gt=0)] | None = None  # τ; null: that of the base

    def __call__(self, views: Views) -> Tensor:
        """A scalar in nats, the same on every process: 0 where the distributions are the base's."""
        images, base_images = views.anchor_image, views.base_anchor_image
        texts, base_texts = views.anchor_text, views.base_anchor_text
        assert images is not None  # the run fills what `needs` names
        assert texts is not None
        assert base_images is not None
        assert base_texts is not None
        scale = views.base_scale if self.temperature is None else 1 / self.temperature
        logits = scale * images @ texts.T
        base_logits = scale * base_images @ base_texts.T
        return 0.5 * (_divergence(base_logits, logits) + _divergence(base_logits.T, logits.T))


def _divergence(base: Tensor, now: Tensor) -> Tensor:
    """The mean over rows of KL(softmax(base) ‖ softmax(now))."""
    return F.kl_div(now.log_softmax(1), base.log_softmax(1), log_target=True, reduction="batchmean")
