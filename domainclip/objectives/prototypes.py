"""Prototypes: the cluster of an image is predicted from its text, and the reverse.

Legend: b pairs, k prototypes, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from domainclip.data.text.related_texts import draw_texts
from domainclip.data.text.sentences import split_sentences
from domainclip.data.text.training_pair import TrainingPair
from domainclip.objectives.base import Taught, Views
from domainclip.objectives.losses import sinkhorn
from domainclip.objectives.losses.directions import ObjectiveWithDirections


@dataclass(frozen=True, kw_only=True)
class Prototypes(ObjectiveWithDirections):
    """−½ · 1/b Σ_i Σ_k [q(y_i)_k log p(x_i)_k + q(x_i)_k log p(y_i)_k], p(x) = softmax(x · c_k / τ).

    Swapped assignment: c_1…c_k are learnable directions; q is the share of each in a row, balanced over the
    batch so that all are used equally (Sinkhorn, without gradient). [arXiv:2006.09882] Between an image and
    its text it contrasts clusters rather than single pairs, as ProtoCLIP does [arXiv:2206.10996]. Differs
    from it in the clustering: there k-means on the whole corpus between episodes, here online in each batch,
    and there prototypes are translated between modalities, here both share them. `between: views` compares
    the image with a strongly augmented view instead, as SwAV does (with two strong views, and a head), and
    encodes every image twice. `between: sentences` predicts from the image the clusters of up to
    `max_sentences` sentences of its report: sentence prototypes as in PRIOR [arXiv:2307.12577], which writes
    the sentences' prototypes with a decoder instead, one a sentence; here the image gives one distribution
    for all of them. Pairs of one group may have different clusters. A batch much smaller than `count` makes
    the assignment close to arbitrary.
    """

    citation: ClassVar[str] = "arXiv:2006.09882, arXiv:2307.12577"
    extra_texts_remedy: ClassVar[str] = "use captions with words"

    count: Annotated[int, Field(ge=2)] = 64  # k
    # An image and its text, an image and a strongly augmented view, or an image and sentences of its report.
    between: Literal["modalities", "views", "sentences"] = "modalities"
    max_sentences: Annotated[int, Field(ge=1, le=32)] = 4  # of a pair, drawn anew in each epoch
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.1  # τ
    assignment_temperature: Annotated[float, Field(gt=0, le=10)] = 0.05  # of q; near 0: one cluster
    rate: Annotated[float, Field(gt=0)] = 10.0  # factor on the learning rate of the directions

    @property
    def needs(self) -> frozenset[str]:
        """The second view, or the sentences, where those are compared."""
        views = {"views": {"image_2"}, "sentences": {"extra_text"}}
        return frozenset(views.get(self.between, ()))

    @property
    def teaches(self) -> frozenset[Taught]:
        """Both towers; the image tower alone where its views are compared."""
        return frozenset({"image"} if self.between == "views" else {"image", "text"})

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        """Sentences of the caption that the epoch shows, in an order drawn by the seed of the pair."""
        return draw_texts(split_sentences(pair.text), pair, self.max_sentences)

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        if self.between == "sentences":
            return self._sentences(views)
        other = views.image_2 if self.between == "views" else views.text
        assert other is not None  # the run fills what `needs` names
        rows, directions = views.local_slice, views.own_weights["directions"]
        scores = [sinkhorn.prototype_scores(side, directions) for side in (views.image, other)]
        shares = [sinkhorn.balanced_assignment(one, self.assignment_temperature) for one in scores]
        swapped = zip(reversed(shares), scores, strict=True)
        losses = [sinkhorn.assignment_loss(q[rows], s[rows], self.temperature) for q, s in swapped]
        return (losses[0] + losses[1]) / 2

    def _sentences(self, views: Views) -> Tensor:
        """½ of the nats of the clusters of a pair's sentences from its image, and of those of its image."""
        assert views.extra_text is not None  # the run fills what `needs` names
        assert views.extra_text_mask is not None
        directions, exists = views.own_weights["directions"], views.extra_text_mask
        if not bool(exists.any()):
            return views.image.sum() * 0
        images = sinkhorn.prototype_scores(views.image, directions)
        sentences = sinkhorn.prototype_scores(views.extra_text[exists], directions)
        pair_of = exists.nonzero()[:, 0]
        of_sentences = sinkhorn.balanced_assignment(sentences, self.assignment_temperature)
        of_images = sinkhorn.balanced_assignment(images, self.assignment_temperature)
        both = (of_sentences * (images[pair_of] / self.temperature).log_softmax(dim=-1)).sum(dim=-1)
        both = both + (of_images[pair_of] * (sentences / self.temperature).log_softmax(dim=-1)).sum(dim=-1)
        share = -both / 2 / exists.sum(dim=1)[pair_of]
        of_pairs = images.new_zeros(len(images)).index_add(0, pair_of, share)
        return of_pairs[views.local_slice].mean()
