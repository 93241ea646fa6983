"""Batches of similar items, whose negatives are harder.

Legend: n items, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from domainclip.data.interfaces import BatchOrdering

if TYPE_CHECKING:
    from datasets import Dataset

    from domainclip.data.interfaces import Encoder


@dataclass(frozen=True, kw_only=True)
class ClusterBatches(BatchOrdering):
    """k-means over the base's embeddings; a batch is drawn from one cluster as far as it reaches.

    Two random images of a corpus are mostly easy to distinguish, and teach little. Within a cluster the
    captions that fit best are near misses. Every item is still shown once an epoch; only the order changes.
    [arXiv:2407.18887, which clusters with k = 10] Costs one pass of the base over the corpus, shared with
    cached features and the evaluation. Where many items have the same label, near misses are often correct:
    use the objective contrastive with targets labels, or few clusters.
    """

    citation: ClassVar[str] = "arXiv:2407.18887"
    needs: ClassVar[frozenset[str]] = frozenset({"base"})

    clusters: Annotated[int, Field(ge=2)] = 10  # number of clusters
    by: Literal["image", "text", "both"] = "both"  # the embeddings that are clustered
    seed: int = 0  # of the first centres of the clusters

    def strata(self, items: Dataset, base: Encoder | None = None) -> np.ndarray:
        """(n,) int64, the cluster of each item; fewer clusters where there are fewer items."""
        from sklearn.cluster import MiniBatchKMeans

        assert base is not None  # `needs` names it
        sides = []
        if self.by != "text":
            sides.append(base.images(items))
        if self.by != "image":
            sides.append(base.texts([texts[0] if texts else "" for texts in items["texts"][:]]))
        rows = np.concatenate(sides, axis=1)
        count = min(self.clusters, len(rows))
        means = MiniBatchKMeans(count, random_state=self.seed, n_init=3, batch_size=4096)
        return np.asarray(means.fit_predict(rows), np.int64)
