"""Cluster labels: the nearest clusters of an image's base embedding are classes that it has, all others not.

Legend: b pairs, k clusters, l of them for each image, d width, n training images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from domainclip.errors import RecipeError
from domainclip.objectives.base import Objective, Sizes, Taught, Views


@dataclass(frozen=True, kw_only=True)
class ClusterLabels(Objective):
    """1/b Σ_i [log(1 + Σ_{c not in P_i} exp(s x_i · w_c)) + log(1 + Σ_{c in P_i} exp(−s x_i · w_c))].

    k-means of the base's embeddings of all training images gives k centres, once before training; P_i are the
    `per_image` centres nearest to image i, and w_c learnable directions that begin at the centres. Positive
    and negative classes have a part each, so that the classes of one image do not compete: multi-label
    cluster discrimination [arXiv:2407.17331], here beside a contrastive objective. Differs from it in the
    scale, which is `scale` instead of a margin, in the negatives, all instead of a sample of them, and in the
    centres, of the base instead of another model. Clusters of the base hold what it distinguishes already:
    a restraint more than a lesson. Costs the base's embedding of each image, computed once, and no further
    encoding; does not go with streams.
    """

    citation: ClassVar[str] = "arXiv:2407.17331"
    needs: ClassVar[frozenset[str]] = frozenset({"base_image"})
    teaches: ClassVar[frozenset[Taught]] = frozenset({"image"})

    count: Annotated[int, Field(ge=2)] = 256  # k; fewer where there are fewer images
    per_image: Annotated[int, Field(ge=1)] = 4  # l
    scale: Annotated[float, Field(gt=0)] = 16.0  # s
    rate: Annotated[float, Field(gt=0)] = 10.0  # factor on the learning rate of the directions

    def __post_init__(self) -> None:
        if self.per_image >= self.count:
            raise RecipeError(
                f"objectives.cluster_labels.per_image: {self.per_image} of {self.count} clusters leave no "
                "other: lower it, or raise count"
            )

    @property
    def own_learning_rate(self) -> float:
        """Factor on the learning rate of the directions."""
        return self.rate

    def initial_weights(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """`directions` (k, d): the centres."""
        return {"directions": self._centres(sizes, seed)}

    def initial_memory(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """`centres` (k, d), which no step changes."""
        return {"centres": self._centres(sizes, seed)}

    def _centres(self, sizes: Sizes, seed: int) -> Tensor:
        """(k, d) of unit length."""
        from sklearn.cluster import MiniBatchKMeans

        rows = sizes.base_images
        assert rows is not None  # the run brings them to an objective that needs "base_image"
        count = min(self.count, len(rows))
        means = MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=4096).fit(rows)
        return F.normalize(torch.from_numpy(means.cluster_centers_).float(), dim=-1)

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        assert views.base_image is not None
        rows = views.image[views.local_slice]
        d = rows.shape[-1]
        centres = views.memory["centres"].to(views.base_image.dtype)
        cosines = views.base_image[views.local_slice] @ centres[:, : views.base_image.shape[-1]].T
        nearest = cosines.topk(min(self.per_image, len(centres)), dim=-1).indices
        positive = torch.zeros_like(cosines, dtype=torch.bool).scatter(1, nearest, True)
        directions = F.normalize(views.own_weights["directions"][:, :d].to(rows.dtype), dim=-1)
        logits = self.scale * rows @ directions.T
        return (_log_one_plus(logits, ~positive) + _log_one_plus(-logits, positive)).mean()


def _log_one_plus(logits: Tensor, chosen: Tensor) -> Tensor:
    """(b,) log(1 + Σ exp logits) over the chosen columns."""
    return F.pad(logits.masked_fill(~chosen, -torch.inf), (0, 1)).logsumexp(dim=-1)
