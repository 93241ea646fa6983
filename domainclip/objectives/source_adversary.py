"""Source adversary: a classifier names the source of each image, and the image tower hides it.

Legend: b pairs, r those of this process, d width, h hidden units, c classes, s sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import ItemSource, Objective, ObjectiveInputs, Sizes, Taught, Views


@dataclass(frozen=True, kw_only=True)
class SourceAdversary(Objective):
    """1/r Σ_i CE(C(R(x_i), y_i), s_i), R(x) = x forward and −`strength` times the gradient backward.

    C learns to name the source (hospital, scanner, view) of an image; the image tower receives the reversed
    gradient and learns embeddings in which C finds no source: domain-adversarial training [arXiv:1505.07818].
    C is linear, W x √d + G y + v, or has a ReLU layer of `hidden` units, W relu(A x √d + a) + G y + v, as in
    the paper; a larger one overfits few items, and its gradient vanishes where it is certain. With
    `given_labels`, y is the labels of the item: what they predict of the source is in G y, so that only what
    x adds to it is removed, and not the finding where it is tangled with the source; conditional adversaries
    see the class as well [arXiv:1705.10667]. W, G and v begin at 0, so that the reversed gradient does too.
    Differs from the paper: the strength is constant, the domains are the sources of the training items, all
    of them labelled, and no test item is read. Items without a source count 0. The loss begins at log s, and
    falls as far as the labels and the embeddings predict the source. That this classifier finds none does not
    mean that no other does: `source_removal` guarantees it for linear ones, and the probe `sources` measures
    what is gained. Costs no further encoding; C is not saved with the model.
    """

    citation: ClassVar[str] = "arXiv:1505.07818"
    teaches: ClassVar[frozenset[Taught]] = frozenset({"image"})

    by: Literal["source", "acquisition", "both"] = "source"  # of corpus.columns: what is hidden
    # Whether the classifier receives the labels of the item, so that the image need not hide them.
    given_labels: bool = True
    strength: Annotated[float, Field(gt=0)] = 1.0  # factor on the reversed gradient
    hidden: Annotated[int, Field(ge=0, le=4096)] = 0  # units of the classifier; 0: linear
    rate: Annotated[float, Field(gt=0)] = 10.0  # factor on the learning rate of the classifier

    @property
    def needs(self) -> frozenset[str]:
        """The number of the source of each pair, and its labels."""
        return frozenset({"pair_value", "labels"} if self.given_labels else {"pair_value"})

    @property
    def inputs(self) -> ObjectiveInputs:
        """Which columns are the source."""
        return ObjectiveInputs(source=ItemSource(self.by, self.given_labels))

    @property
    def own_learning_rate(self) -> float:
        """Factor on the learning rate of the classifier."""
        return self.rate

    def initial_weights(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """Zeros: `output` (s, h or d), `labels` (s, c), `bias` (s,).

        With hidden units also `layer` (h, d), random, and `layer_bias` (h,), 0.
        """
        s, width = sizes.sources, self.hidden or sizes.width
        start = {"output": torch.zeros(s, width), "bias": torch.zeros(s)}
        if self.given_labels:
            start["labels"] = torch.zeros(s, sizes.classes)
        if self.hidden:
            draw = torch.Generator().manual_seed(seed)
            layer = torch.randn(self.hidden, sizes.width, generator=draw) / sizes.width**0.5
            start |= {"layer": layer, "layer_bias": torch.zeros(self.hidden)}
        return start

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        assert views.pair_value is not None  # the run fills what `needs` names
        rows, source = views.local_slice, views.pair_value[views.local_slice]
        logits = self._logits(_reversed(views.image[rows], self.strength), views)
        known = ~source.isnan()
        nats = F.cross_entropy(logits, source.nan_to_num().long(), reduction="none")
        return nats.masked_fill(~known, 0.0).mean()

    def _logits(self, x: Tensor, views: Views) -> Tensor:
        """(r, s) of the rows of this process."""
        weights = {name: weight.to(x.dtype) for name, weight in views.own_weights.items()}
        d = x.shape[-1]  # narrower than the model inside of matryoshka
        features = x * d**0.5
        if self.hidden:
            features = F.relu(features @ weights["layer"][:, :d].T + weights["layer_bias"])
        logits: Tensor = features @ weights["output"][:, : features.shape[-1]].T + weights["bias"]
        if self.given_labels:
            assert views.labels is not None
            logits = logits + views.labels[views.local_slice].to(x.dtype) @ weights["labels"].T
        return logits


def _reversed(x: Tensor, strength: float) -> Tensor:
    """The same rows, through which a gradient flows back with −`strength` times its value."""
    return (1 + strength) * x.detach() - strength * x
