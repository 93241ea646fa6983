"""Report sentences: each sentence of a report is a positive of its image.

Legend: b pairs, r those of this process, k sentences of a pair at most, m sentences in all, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip.data.batching.matches import RowMask
from domainclip.data.text.related_texts import caption_language, draw_texts
from domainclip.data.text.sentences import split_sentences
from domainclip.data.text.training_pair import TrainingPair
from domainclip.objectives.base import Negatives, Objective, Views
from domainclip.objectives.losses.extra_texts import (
    cross_entropy_among,
    is_local,
    matching_pair_mask,
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
    negatives: ClassVar[Negatives] = "other_groups"

    max_sentences: Annotated[int, Field(ge=1, le=32)] = 4  # the authors' code draws 6
    patches: bool = False  # whether sentences are matched with groups of patches too

    @property
    def needs(self) -> frozenset[str]:
        """The sentences, and the patches of the images where they are used."""
        return frozenset({"extra_text", "image_tokens"} if self.patches else {"extra_text"})

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        """Sentences of the captions of the item, in an order drawn by the seed of the pair."""
        language = caption_language(pair)
        captions = list(zip(pair.texts, pair.languages, strict=False))
        in_language = [text for text, text_language in captions if text_language == language]
        texts = in_language or [text for text, _ in captions] or [pair.text]
        return draw_texts(
            (sentence for text in texts for sentence in split_sentences(text)), pair, self.max_sentences
        )

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process; a pair without sentences counts 0."""
        assert views.extra_text is not None  # the run fills what `needs` names
        assert views.extra_text_mask is not None
        local, exists = views.local_slice, views.extra_text_mask
        sentences, pair_of = views.extra_text[exists], exists.nonzero()[:, 0]  # (m, d), (m,)
        is_own = is_local(pair_of, local)
        rows, pair = sentences[is_own], pair_of[is_own]
        image = views.image[pair]
        number = number_equal_texts(sentences)
        pair_numbers = torch.full_like(exists, -1, dtype=torch.long).masked_scatter(exists, number)
        no_negatives = _positive_sentences(views, pair, pair_of, number, pair_numbers)
        nats = cross_entropy_among(image, rows, sentences, no_negatives, views.scale)
        no_negatives = _positive_images(views, pair, number[is_own], pair_numbers)
        nats = nats + cross_entropy_among(rows, image, views.image, no_negatives, views.scale)
        counts = exists.sum(dim=1)
        losses = image.new_zeros(local.stop - local.start)
        losses = losses.index_add(0, pair - local.start, nats / 2 / counts[pair])
        if self.patches:
            assert views.image_tokens is not None
            words = views.extra_text[local]
            grouped = group_patches(views.image_tokens[local], words)
            losses = losses + contrast_within_pair(grouped, words, exists[local], views.scale)
        return losses.mean()


def _positive_sentences(
    views: Views, pair: Tensor, pair_of: Tensor, number: Tensor, pair_numbers: Tensor
) -> RowMask:
    """The positive sentences of an image: those of its pair and group, and any equal to one of its pair.

    Shapes: `number` (m,) of each sentence, `pair_numbers` (b, k) those of each pair, -1 where it has none.
    """
    same = matching_pair_mask(views, pair, pair_of)

    def excluded(at: Tensor) -> Tensor:
        mask = same(at)
        for numbers in pair_numbers[pair[at]].T:  # one at a time, to hold one block
            mask |= numbers[:, None] == number
        return mask

    return excluded


def _positive_images(views: Views, pair: Tensor, number: Tensor, pair_numbers: Tensor) -> RowMask:
    """The positive images of a sentence: those of its pair and group, and of pairs with an equal sentence."""
    same = matching_pair_mask(views, pair, torch.arange(len(pair_numbers), device=pair.device))

    def excluded(at: Tensor) -> Tensor:
        mask = same(at)
        for numbers in pair_numbers.T:
            mask |= number[at][:, None] == numbers
        return mask

    return excluded
