"""Anchor images while training: their embeddings by the base, and the ones that each step shows.

Legend: n anchor images, m of them in a step, t tokens, w width of a tower, d width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from domainclip import seeding
from domainclip.config.training import TrainConfig
from domainclip.data.batching import pixel_cache
from domainclip.data.batching.batch import collate
from domainclip.data.batching.pairs import Pairs
from domainclip.data.quarantine import UnusableItem
from domainclip.models.dual_encoder import DualEncoder
from domainclip.training import feature_cache
from domainclip.training.cache_entry import CacheBudget


@dataclass(frozen=True)
class AnchorImageSource:
    """The anchor images of a run, as a data set without captions."""

    pairs: Pairs
    digests: tuple[str, ...]  # of each image
    per_step: int

    def drawn_rows(self, step: int, seed: int) -> list[int]:
        """The rows of the images of a step: a pure function, so that a resumed run draws the same."""
        draw = np.random.Generator(np.random.Philox(key=seeding.stable(seed, step, "anchor images")))
        return [int(row) for row in draw.choice(len(self.pairs), size=self.per_step, replace=False)]


@dataclass(frozen=True)
class AnchorFeatures:
    """The anchor images, and what frozen models and layers compute of them once."""

    source: AnchorImageSource
    embeddings: np.ndarray  # (n, d) by the base
    scale: float  # inverse temperature of the base
    unusable: tuple[UnusableItem, ...] = ()  # images that could not be read, each replaced by the next one
    hidden: np.ndarray | None = None  # (n, t, w) where the tower begins at a later layer

    def images(self, rows: list[int], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The input of the image tower for some rows, in the form of `like`, the input for the pairs."""
        if "hidden" in like:
            assert self.hidden is not None  # cached with that of the pairs
            return {"hidden": torch.from_numpy(self.hidden[rows])}
        image = collate([self.source.pairs[0, row] for row in rows]).image
        assert image is not None
        return image

    def embeddings_of(self, rows: list[int], device: torch.device) -> Tensor:
        """(m, d) the embeddings of some rows by the base."""
        return torch.from_numpy(self.embeddings[rows]).to(device)


def precompute_anchor_images(
    source: AnchorImageSource, base: DualEncoder, budget: CacheBudget, settings: TrainConfig
) -> AnchorFeatures | None:
    """The embeddings of the images by the frozen base; None where the cache has no room for them.

    Their decoded pixels are cached as well.
    """
    pairs = pixel_cache.with_pixel_cache(
        source.pairs,
        dict(zip(source.pairs.ids, source.digests, strict=True)),
        limit_gb=settings.pixel_cache_gb,
        workers=settings.workers,
        report=budget.notes.append,
    )
    source = replace(source, pairs=pairs)
    features = feature_cache.cache_image_features(base, pairs, source.digests, budget, settings.workers)
    if features is None:
        return None
    return AnchorFeatures(source, features.rows, float(base.scale), tuple(features.unusable))


def with_hidden_states(
    anchors: AnchorFeatures, model: DualEncoder, budget: CacheBudget, settings: TrainConfig
) -> AnchorFeatures | None:
    """The images with the outputs of frozen layers for them; None where the cache has no room for them."""
    source = anchors.source
    features = feature_cache.cache_image_features(
        model, source.pairs, source.digests, budget, settings.workers
    )
    return None if features is None else replace(anchors, hidden=features.rows)
