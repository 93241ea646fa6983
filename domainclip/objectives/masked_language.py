"""Masked language: a word that is taken out of a caption is predicted from the rest and the image.

Legend: b pairs, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from domainclip import seeding
from domainclip.data.text.lexicon import find_lexicon
from domainclip.data.text.related_texts import caption_language
from domainclip.data.text.training_pair import TrainingPair
from domainclip.data.text.words import SpacedText
from domainclip.objectives.base import Negatives, Objective, Sizes, Views
from domainclip.objectives.losses.extra_texts import cross_entropy_among


@dataclass(frozen=True, kw_only=True)
class MaskedLanguage(Objective):
    """1/b Σ_i CE(A x_i + B t_i → w_i among the words of the batch), t_i the caption without the word w_i.

    The word is a content word of the caption that the epoch shows, another in each epoch; t_i and w_i are
    embeddings by the text tower, A and B learnable and at the start the identity, the query of unit length.
    Equal words are not each other's negatives. Masked words predicted from the image [arXiv:2303.07240].
    Differs from PMC-CLIP, where a transformer reads the tokens of both towers and predicts the masked one of
    the vocabulary: here the word is left out, and found among those of the batch, so that no head is needed
    for the vocabulary. A caption with one content word, or in a script without spaces, has none taken out and
    counts 0. Beside a contrastive objective; cost: two short texts a pair, equal ones encoded once.
    """

    citation: ClassVar[str] = "arXiv:2303.07240"
    negatives: ClassVar[Negatives] = "none"  # the words of other pairs, of any group
    needs: ClassVar[frozenset[str]] = frozenset({"extra_text"})
    extra_texts_remedy: ClassVar[str] = "use captions of several words, in a script with spaces"

    rate: Annotated[float, Field(gt=0)] = 10.0  # factor on the learning rate of A and B

    @property
    def own_learning_rate(self) -> float:
        """Factor on the learning rate of A and B."""
        return self.rate

    def initial_weights(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """`mixers` (2, d, d), A and B: the identity."""
        return {"mixers": torch.eye(sizes.width).repeat(2, 1, 1)}

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        """The caption without one of its content words, and that word; none where it has only one."""
        spaced = SpacedText.of(pair.text)
        places = spaced.content_positions(find_lexicon(pair.text, caption_language(pair)).function_words)
        if len(places) < 2:
            return []
        place = places[seeding.stable(pair.seed, "masked word") % len(places)]
        return [spaced.replace_words({place: ""}), spaced.words[place].casefold()]

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        assert views.extra_text is not None  # the run fills what `needs` names
        assert views.extra_text_mask is not None
        start, d = views.local_slice.start, views.image.shape[-1]
        losses = views.image.new_zeros(views.local_slice.stop - start)
        if views.extra_text.shape[1] < 2:
            return losses.mean()
        pairs = views.extra_text_mask[:, 1].nonzero().flatten()
        local = pairs[(pairs >= start) & (pairs < views.local_slice.stop)]
        mixers = views.own_weights["mixers"][:, :d, :d].to(views.image.dtype)
        rest, words = views.extra_text[:, 0], views.extra_text[:, 1]
        query = F.normalize(views.image[local] @ mixers[0] + rest[local] @ mixers[1], dim=-1)

        def excluded(at: Tensor) -> Tensor:
            return local[at][:, None] == pairs

        nats = cross_entropy_among(query, words[local], words[pairs], excluded, views.scale)
        return losses.index_add(0, local - start, nats).mean()
