"""Class captions: beside its own caption, each image is matched with a prompt of its class.

Legend: b pairs, k rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from domainclip import seeding
from domainclip.data.batching.matches import RowMask
from domainclip.data.text.training_pair import TrainingPair
from domainclip.objectives.base import Negatives, Objective, Views
from domainclip.objectives.losses.blockwise import cross_entropy
from domainclip.objectives.losses.symmetric import symmetric_loss


@dataclass(frozen=True, kw_only=True)
class ClassCaptions(Objective):
    """½ [CE(s x · p, I) + CE(s p · x, I)], p a prompt of the class of each image, s the inverse temperature.

    Fine-tuning as in pre-training, with the prompts of the classes as captions. [arXiv:2212.00638] A caption
    teaches names and details, a prompt what zero-shot classification asks. Where one of the two is drawn in
    each epoch (curation `labels_to_captions`), each takes steps from the other; here every step has both, so
    that retrieval does not pay for classification. The prompts are those of the card, one drawn in each epoch
    for an item with several. Differs from the paper: pairs that share a class, a group or a caption are not
    each other's negatives, and the captions of the items are learned by another objective. A pair without a
    class contrasts its caption with those of other such pairs. Costs a second, short text a pair: equal texts
    are encoded once.
    """

    citation: ClassVar[str] = "arXiv:2212.00638"
    needs: ClassVar[frozenset[str]] = frozenset({"extra_text", "labels"})
    negatives: ClassVar[Negatives] = "other_labels"
    extra_texts_remedy: ClassVar[str] = (
        "name the classes under classes of the card, or templates, and the labels under columns.labels"
    )

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        """One prompt of one class of the pair; none without a class."""
        named = [name for name in pair.labels if name in pair.classes]
        prompts = [(name, text) for name in named for text in pair.classes[name].positive]
        drawn = sorted(prompts, key=lambda prompt: seeding.stable(pair.seed, "class", *prompt))
        return [text for _, text in drawn[:1]]

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        assert views.extra_text is not None  # the run fills what `needs` names
        assert views.extra_text_mask is not None
        assert views.labels is not None
        has_class = views.extra_text_mask[:, 0]
        prompts = torch.where(has_class[:, None], views.extra_text[:, 0], views.text)
        masks = tuple(_unrelated_only(views.labels, has_class, mask) for mask in views.masks)
        return symmetric_loss(replace(views, text=prompts), cross_entropy, masks=(masks[0], masks[1]))


def _unrelated_only(labels: Tensor, has_class: Tensor, mask: RowMask | None) -> RowMask:
    """Which columns are no negatives of a row: pairs that share a class, or of which one alone has one."""
    present = labels.float()

    def masked(target: Tensor) -> Tensor:
        related = (present[target] @ present.T > 0) | (has_class[target][:, None] != has_class)
        return related if mask is None else related | mask(target)

    return masked
