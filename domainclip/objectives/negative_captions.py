"""Negative captions: each image is also matched against its caption with an error in it.

Legend: b pairs, r those of this process, k negatives of a pair, d width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainclip.data.batching.matches import RowMask
from domainclip.data.text.negative_captions import Rule, make_negatives
from domainclip.data.text.related_texts import (
    caption_language,
    column_texts,
    distinct_from_captions,
    draw_texts,
)
from domainclip.data.text.training_pair import TrainingPair
from domainclip.objectives.base import Negatives, Objective, Views
from domainclip.objectives.losses.extra_texts import (
    EQUAL_TEXT_COSINE,
    cross_entropy_among,
    matching_pair_mask,
)


@dataclass(frozen=True, kw_only=True)
class NegativeCaptions(Objective):
    """½ [CE over (all texts, negatives of the pair) + CE over all images], in the place of `contrastive`.

    Image i: −log e^{s x·y_i} / (Σ_j e^{s x·y_j} + Σ_k e^{s x·n_ik}); texts are matched with images as usual.
    The negatives are read from a column, and made by rule from the caption that is shown. `swap`: two content
    words are exchanged, unless they are neighbours, or equals joined by "and". `order`: all of them are
    permuted. `numbers`, `laterality`, `negation`: another number, left for right, presence for absence.
    `classes`: the name of another class. Content words are those that are not among the function words of
    their language. Word lists exist for 26 languages; other languages have no laterality and no negation,
    scripts without spaces no swaps. A pair to which no rule applies has no negative. Cost: one further text
    per negative. [arXiv:2210.01936]
    """

    citation: ClassVar[str] = "arXiv:2210.01936"
    replaces: ClassVar[str] = "contrastive"
    negatives: ClassVar[Negatives] = "none"  # a pair brings its own
    needs: ClassVar[frozenset[str]] = frozenset({"extra_text"})

    # How a caption is made wrong.
    rules: list[Rule] = field(default_factory=lambda: ["swap", "numbers", "laterality", "negation", "order"])
    per_pair: Annotated[int, Field(ge=1, le=16)] = 1  # negatives of a pair
    column: str | None = None  # of the item's meta, read before any rule
    classes: list[str] = field(default_factory=list)  # what the rule "classes" puts in the place of a label
    shared: bool = False  # whether all images must refuse the negatives of all pairs, as in the paper

    def __post_init__(self) -> None:
        if not self.rules and self.column is None:
            raise ValueError("rules: name one at least, or the column that holds negatives")
        if ("classes" in self.rules) != bool(self.classes):
            raise ValueError("classes: the rule of that name and the list of classes go together")

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        """What the column holds, then what the rules make, each in an order that the pair's seed decides."""
        from_column = draw_texts(column_texts(pair, self.column), pair) if self.column else []
        from_rules = make_negatives(
            pair.text, self.rules, pair.seed, caption_language(pair), pair.labels, self.classes
        )
        return distinct_from_captions(chain(from_column, from_rules), pair, self.per_pair)

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process. Without any negative it is the contrastive objective."""
        assert views.extra_text is not None  # the run fills what `needs` names
        assert views.extra_text_mask is not None
        local, b = views.local_slice, len(views.image)
        local_rows, every_row = (
            torch.arange(s.start, s.stop, device=views.image.device) for s in (local, slice(0, b))
        )
        image, text = views.image[local], views.text[local]
        columns, mask = views.text, matching_pair_mask(views, local_rows, every_row)
        if self.shared:
            columns = torch.cat([columns, views.extra_text[views.extra_text_mask]])
            mask = _with_negatives_of_others(views, mask, local_rows)
        to_text = cross_entropy_among(image, text, columns, mask, views.scale)
        # Its own negatives, which belong to its group and have left the denominator with it, come back.
        to_text = _add_negatives(
            to_text, image, text, views.extra_text[local], views.extra_text_mask[local], views.scale
        )
        to_image = cross_entropy_among(
            text, image, views.image, matching_pair_mask(views, local_rows, every_row), views.scale
        )
        return (to_text + to_image).mean() / 2


def _with_negatives_of_others(views: Views, mask: RowMask, rows: Tensor) -> RowMask:
    """The mask of the texts of all pairs, followed by that of all negatives; `rows` (r,) are pairs.

    An error in the caption of another pair may be a caption of this image.
    """
    assert views.extra_text_mask is not None
    pair, place = views.extra_text_mask.nonzero().unbind(dim=1)
    of_pair, matches = matching_pair_mask(views, rows, pair), views.extra_matches(pair, place)

    def excluded(at: Tensor) -> Tensor:
        negatives = of_pair(at) if matches is None else of_pair(at) | matches.right_texts(rows[at])
        return torch.cat([mask(at), negatives], dim=1)

    return excluded


def _add_negatives(
    nats: Tensor, image: Tensor, text: Tensor, negatives: Tensor, exists: Tensor, scale: Tensor
) -> Tensor:
    """(r,) nats with further columns in each row's own denominator; one that reads like the text is none."""
    equal = (negatives.detach() @ text.detach()[:, :, None])[..., 0] > EQUAL_TEXT_COSINE
    logits = scale * (negatives @ image[:, :, None])[..., 0]
    positive = scale * (image * text).sum(dim=-1)
    extra_logits = (logits - positive[:, None]).masked_fill(~exists | equal, -torch.inf)
    return torch.cat([nats[:, None], extra_logits], dim=-1).logsumexp(dim=-1)
