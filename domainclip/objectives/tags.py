"""Tags: the words of an image's captions, or its labels, as a classification with several right answers.

Legend: b pairs, c tags, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Objective, ObjectiveInputs, Sizes, TagWords, Taught, Views


@dataclass(frozen=True, kw_only=True)
class Tags(Objective):
    """1/b Σ_i 1/c Σ_t [softplus(z_it) − u_it z_it], z_it = s (x_i · w_t + v_t): cross-entropy of each tag.

    u_it is 1 where a caption of the item names tag t, beside a contrastive objective [arXiv:2312.14149]. The
    tags are the most frequent content words of the training captions; after a negation a word counts as
    absent. w and v are learnable and begin at 0; CatLIP trains with such a classification alone
    [arXiv:2404.15653]. Differs from TagAlign in the parser, which there is a language model that finds
    objects and attributes, and here a list of function words: actions are tags too, and synonyms are
    different tags; in scripts without spaces there are none. `source: labels` takes the labels of the corpus
    instead. A caption does not name all that an image shows, so that absence is uncertain. The classifier is
    not saved with the model. Costs no further encoding.
    """

    citation: ClassVar[str] = "arXiv:2312.14149"
    teaches: ClassVar[frozenset[Taught]] = frozenset({"image"})

    source: Literal["captions", "labels"] = "captions"  # where the tags come from
    count: Annotated[int, Field(ge=1)] = 256  # tags at most, of captions
    min_items: Annotated[int, Field(ge=1)] = 5  # training items whose captions name a tag
    rate: Annotated[float, Field(gt=0)] = 10.0  # factor on the learning rate of the classifier

    @property
    def needs(self) -> frozenset[str]:
        """The tags of each pair, or its labels."""
        return frozenset({"tags" if self.source == "captions" else "labels"})

    @property
    def inputs(self) -> ObjectiveInputs:
        """Which words are tags."""
        words = TagWords(self.count, self.min_items) if self.source == "captions" else None
        return ObjectiveInputs(tag_words=words)

    @property
    def own_learning_rate(self) -> float:
        """Factor on the learning rate of the classifier."""
        return self.rate

    def initial_weights(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """`directions` (c, d) and `offsets` (c,), zero."""
        count = sizes.tags if self.source == "captions" else sizes.classes
        return {"directions": torch.zeros(count, sizes.width), "offsets": torch.zeros(count)}

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process and tag, ln 2 at the start."""
        tags = views.tags if self.source == "captions" else views.labels
        assert tags is not None  # the run fills what `needs` names
        rows = views.image[views.local_slice]
        directions = views.own_weights["directions"][:, : rows.shape[-1]].to(rows.dtype)
        # The scale of the model, which no tag may change.
        logits = views.scale.detach() * (rows @ directions.T + views.own_weights["offsets"].to(rows.dtype))
        right = tags[views.local_slice].to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, right)
