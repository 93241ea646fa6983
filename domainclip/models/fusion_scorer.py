"""Class scores of embeddings that are refined with items of the training split: RECO [arXiv:2306.07196].

Shapes: n images, c classes of the scorer, s items of the memory, k of them retrieved, d embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from domainclip.models import fusion_layer
from domainclip.models.evidence_scorer import EvidenceScorer, EvidenceSettings, read_saved

_LAYER = "layer."


@dataclass(frozen=True, kw_only=True)
class FusionSettings(EvidenceSettings):
    """How embeddings are refined."""

    form: Literal["fusion"] = "fusion"
    neighbours: int  # k
    heads: int  # of the fusion layer
    steps: int  # that the fusion layer was trained for


@dataclass(frozen=True, eq=False)
class FusionScorer(EvidenceScorer):
    """The evidence of a class is the cosine of the refined image and the refined prompts."""

    settings: FusionSettings
    images: np.ndarray  # (s, d) float32: the memory's images
    texts: np.ndarray  # (s, d) float32: their captions
    class_texts: np.ndarray  # (c, d) float32, refined
    layer: Mapping[str, np.ndarray]  # the fusion layer of images

    @property
    def description(self) -> str:
        """Steps and α."""
        return f"retrieval fusion after {self.settings.steps} steps, α {self.settings.alpha:g}"

    def arrays(self) -> Mapping[str, np.ndarray]:
        """The memory, the refined prompts and the layer."""
        layer = {f"{_LAYER}{name}": rows for name, rows in self.layer.items()}
        return {"images": self.images, "texts": self.texts, "class_texts": self.class_texts, **layer}

    def evidence_of(self, images: np.ndarray) -> np.ndarray:
        """(n, c) the cosines, after refinement by the captions of the nearest images."""
        layer = {name: torch.from_numpy(rows) for name, rows in self.layer.items()}
        refined = refined_rows(
            layer, images, self.images, self.texts, self.settings.neighbours, self.settings.heads
        )
        evidence: np.ndarray = refined @ self.class_texts.T.astype(np.float64)
        return evidence

    @classmethod
    def load(cls, folder: Path) -> FusionScorer:
        """Read what `save` wrote.

        Raises: ValueError, KeyError, TypeError or OSError for files of another version, or damaged ones.
        """
        settings, arrays = read_saved(folder)
        layer = {
            name.removeprefix(_LAYER): arrays.pop(name) for name in list(arrays) if name.startswith(_LAYER)
        }
        return cls(FusionSettings(**settings), **arrays, layer=layer)


@torch.no_grad()
def refined_rows(
    layer: fusion_layer.Weights,
    queries: np.ndarray,
    same_side: np.ndarray,
    other_side: np.ndarray,
    neighbours: int,
    heads: int,
) -> np.ndarray:
    """(n, d) float64 of queries (n, d), by the other sides of the k items that are nearest on their side.

    In float64, so that no digit of a score depends on how many images are scored at once.
    """
    wide = queries.astype(np.float64)
    nearest = np.argsort(-(wide @ same_side.T), axis=1, kind="stable")[:, :neighbours]
    retrieved = torch.from_numpy(other_side[nearest]).double()
    weights = {name: weight.double() for name, weight in layer.items()}
    refined: np.ndarray = fusion_layer.refine(weights, torch.from_numpy(wide), retrieved, heads).numpy()
    return refined
