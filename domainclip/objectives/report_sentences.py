"""Report sentences: each sentence of a report is a positive of its image.

Legend: b pairs, r those of this process, k sentences of a pair at most, m sentences in all, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip.data.text.related_texts import caption_language, draw_texts
from domainclip.data.text.sentences import split_sentences
from domainclip.data.text.training_pair import TrainingPair
from domainclip.objectives.base import Objective, Views
from domainclip.objectives.losses.extra_texts import (
    ColumnMask,
    cross_entropy_among,
    is_local,
    same_pair_or_group,
)
from domainclip.objectives.losses.label_matching import number_equal_texts
from domainclip.objectives.losses.patch_grouping import contrast_within_pair, group_patches


@dataclass(frozen=True, kw_only=True)
class ReportSentences(Objective):
    """1/b Σ_i 1/k_i Σ_k ½ [CE(x_i → t_ik among other pairs' sentences) + CE(t_ik → x_i among all images)].

    t_ik are up to `max_sentences` sentences, drawn anew in each epoch from all captions of the item in the
    language that is shown. The other sentences of a pair, and of its group, are neither positives nor
    negatives; a sentence that two reports share is a positive of both images (recognised by its embedding:
    equal texts are encoded once). With `patches` each sentence also has a group of patches, and is matched
    with it among those of the other sentences of the pair [arXiv:2401.09865]. Differs from the paper, which
    takes the sum over the sentences of a pair, not their mean, and draws whole short captions too; and from
    its code, where one sentence of each other pair is a negative, here all are, and where patches have a
    learned temperature, and those of other pairs are negatives too. Cost: `max_sentences` further texts per
    pair. [arXiv:2403.17007]
    """

    citation: ClassVar[str] = "arXiv:2403.17007"

    max_sentences: Annotated[int, Field(ge=1, le=32)] = 4  # the authors' code draws 6
    patches: bool = False

    @property
    def needs(self) -> frozenset[str]:
        """The sentences, and the patches of the images where they are used."""
        return frozenset({"extra_text", "image_tokens"} if self.patches else {"extra_text"})

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        """Sentences of the captions of the item, in an order drawn by the seed of the pair."""
        own = caption_language(pair)
        sides = list(zip(pair.texts, pair.languages, strict=False))
        spoken = [text for text, said in sides if said == own] or [text for text, _ in sides] or [pair.text]
        return draw_texts((one for text in spoken for one in split_sentences(text)), pair, self.max_sentences)

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process; a pair without sentences counts 0."""
        assert views.extra_text is not None  # the run fills what `needs` names
        assert views.extra_text_mask is not None
        own = views.local_slice
        said, of = (
            views.extra_text[views.extra_text_mask],
            views.extra_text_mask.nonzero()[:, 0],
        )  # (m, d), (m,)
        mine = is_local(of, own)
        sentence, pair = said[mine], of[mine]
        image = views.image[pair]
        number = number_equal_texts(said)
        known = torch.full_like(views.extra_text_mask, -1, dtype=torch.long).masked_scatter(
            views.extra_text_mask, number
        )
        to_text = cross_entropy_among(
            image, sentence, said, _said_of(views, pair, of, number, known), views.scale
        )
        also = _saying(views, pair, number[mine], known)
        nats = to_text + cross_entropy_among(sentence, image, views.image, also, views.scale)
        counts = views.extra_text_mask.sum(dim=1)
        losses = image.new_zeros(own.stop - own.start)
        losses = losses.index_add(0, pair - own.start, nats / 2 / counts[pair])
        if self.patches:
            assert views.image_tokens is not None
            words = views.extra_text[own]
            seen = group_patches(views.image_tokens[own], words)
            losses = losses + contrast_within_pair(seen, words, views.extra_text_mask[own], views.scale)
        return losses.mean()


def _said_of(views: Views, pair: Tensor, of: Tensor, number: Tensor, known: Tensor) -> ColumnMask:
    """Sentences that are said of a row's picture: its own, its group's, and any that reads like one.

    Shapes: `number` (m,) of each sentence, `known` (b, k) those of each pair, -1 where it has none.
    """
    own = same_pair_or_group(views, pair, of)

    def out(at: Tensor) -> Tensor:
        found = own(at)
        for numbers in known[pair[at]].T:  # all at once would be so many blocks
            found |= numbers[:, None] == number
        return found

    return out


def _saying(views: Views, pair: Tensor, number: Tensor, known: Tensor) -> ColumnMask:
    """Images of which a row's sentence is said: its own pair's, its group's, and any other's."""
    own = same_pair_or_group(views, pair, torch.arange(len(known), device=pair.device))

    def out(at: Tensor) -> Tensor:
        found = own(at)
        for numbers in known.T:
            found |= number[at][:, None] == numbers
        return found

    return out
