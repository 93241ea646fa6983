"""Episodic prototypes: clusters of the texts group the images, and the reverse, anew in each episode.

Legend: b pairs, k prototypes, q pairs of the queue, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from domainclip.objectives.base import Objective, Sizes, Views

_SIDES = ("image", "text")


@dataclass(frozen=True, kw_only=True)
class EpisodicPrototypes(Objective):
    """½ · 1/b Σ_i Σ_k [−q(y_i)_k log p(x_i)_k − q(x_i)_k log p(y_i)_k], p(x) = softmax(x · ĉ_k / τ).

    After the first step, and every `episode` steps, k-means finds the prototypes c_1…c_k of the texts of the
    `size` newest pairs; q(y) is the softmax of y · c_k / τ_q, without gradient. ĉ_k is the mean image of the
    pairs whose text belongs to c_k: the prototype translated back into the space of the images, so that they
    are grouped without being pulled towards the texts; and the same with both exchanged. With
    `back_translation: false` ĉ_k is c_k [arXiv:2206.10996]. Differs from ProtoCLIP in the episode, there a
    part of the corpus that is encoded for it, and here the pairs of the last steps as they were encoded.
    Beside `contrastive`; in the first step the loss is 0.
    """

    citation: ClassVar[str] = "arXiv:2206.10996"

    count: Annotated[int, Field(ge=2)] = 64  # k; fewer where the queue has fewer pairs
    size: Annotated[int, Field(ge=2)] = 4096  # q
    episode: Annotated[int, Field(ge=1)] = 20  # steps
    back_translation: bool = True  # whether prototypes are means of the other modality
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.1  # τ
    target_temperature: Annotated[float, Field(gt=0, le=10)] = 0.05  # τ_q; near 0: one prototype

    def initial_memory(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        """`image`, `text` (q, d), empty; `step`, `seed`; `clustered`, `translated` (k, d) of each side."""
        none = torch.zeros(0, sizes.width)
        prototypes = {f"{side}_{kind}": none for side in _SIDES for kind in ("clustered", "translated")}
        return {"image": none, "text": none, "step": torch.tensor(0), "seed": torch.tensor(seed)} | prototypes

    def update_memory(self, views: Views) -> dict[str, Tensor]:
        """The queue with the batch in front; where an episode begins, with new prototypes."""
        memory = {**views.memory, "step": views.memory["step"] + 1}
        for side, rows in zip(_SIDES, (views.image, views.text), strict=True):
            memory[side] = torch.cat([rows.detach(), memory[side].to(rows)])[: self.size]
        if int(views.memory["step"]) % self.episode == 0 and len(memory["image"]) > 2:
            for side, other in (_SIDES, _SIDES[::-1]):
                clustered, cluster = self._clusters(memory[side], int(memory["seed"]))
                sums = torch.zeros_like(clustered).index_add(0, cluster, memory[other])
                memory[f"{side}_clustered"] = clustered
                memory[f"{side}_translated"] = F.normalize(sums, dim=-1)
        return memory

    def _clusters(self, rows: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """(k, d) centres of unit length that have rows, and (q,) the centre of each."""
        from sklearn.cluster import MiniBatchKMeans

        points = rows.cpu().float().numpy()
        count = min(self.count, len(points) // 2)
        means = MiniBatchKMeans(count, random_state=seed, n_init=1, batch_size=4096).fit(points)
        used, cluster = torch.from_numpy(means.labels_).long().to(rows.device).unique(return_inverse=True)
        centres = torch.from_numpy(means.cluster_centers_).to(rows)[used]
        return F.normalize(centres, dim=-1), cluster

    def __call__(self, views: Views) -> Tensor:
        """A scalar: nats per pair of this process."""
        if not len(views.memory["image_clustered"]):
            return (views.image.sum() + views.text.sum()) * 0
        rows, batch = views.local_slice, {"image": views.image, "text": views.text}
        losses = []
        for side, other in (_SIDES, _SIDES[::-1]):  # the clusters of one side group the other one
            clustered, translated = (
                self._prototypes(views, f"{side}_{kind}") for kind in ("clustered", "translated")
            )
            target = (batch[side][rows].detach() @ clustered.T / self.target_temperature).softmax(dim=-1)
            prototypes = translated if self.back_translation else clustered
            log_share = (batch[other][rows] @ prototypes.T / self.temperature).log_softmax(dim=-1)
            losses.append(-(target * log_share).sum(dim=-1).mean())
        return (losses[0] + losses[1]) / 2

    def _prototypes(self, views: Views, name: str) -> Tensor:
        d = views.image.shape[-1]
        return F.normalize(views.memory[name][:, :d].to(views.image), dim=-1)
