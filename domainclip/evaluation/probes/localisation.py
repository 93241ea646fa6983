"""Whether the model sees a thing where it lies: maps of patch-text similarity against boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from domainclip.data.images.boxes import Box, read_boxes
from domainclip.data.interfaces import Encoder
from domainclip.errors import ModelError
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.metrics.labelled_examples import sample_items
from domainclip.evaluation.metrics.results import metric, not_measured
from domainclip.evaluation.metrics.zero_shot_scores import class_vectors

if TYPE_CHECKING:
    from datasets import Dataset

_FINE = 8  # cells along an edge of a patch, so that a box counts where it covers part of one
_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True, kw_only=True)
class Localisation(Probe):
    """Pointing game [arXiv:1608.00507], contrast to noise and mean IoU [arXiv:2204.09817].

    A map holds the cosine of each patch with the text of one label. Pointing: whether its highest patch lies
    in a box of that label. Contrast: (mean inside - mean outside) / sqrt(var inside + var outside), with its
    sign, so that a map that points away counts against the model. Mean IoU: of the cells above 0.1 to 0.5
    with the boxes, mean over the five; the map is stretched to 0 to 1 first, as cosines of different models
    have different ranges (the paper's do not need it). Boxes come from the `meta` column; see data/boxes.py.
    """

    citation: ClassVar[str] = "arXiv:2204.09817, arXiv:1608.00507"
    version: ClassVar[int] = 1

    max_items: Annotated[int, Field(ge=1)] = 128  # items; each runs the image tower again

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Three figures: one score an item, the mean over its labels."""
        boxes, bad = read_boxes(data.items)
        having = [row for row, found in enumerate(boxes) if found]
        if not having:
            return not_measured("localisation", data, self.version, "items with boxes")
        if not hasattr(encoder, "patches"):
            return not_measured("localisation", data, self.version, "embeddings of patches for this model")
        rows = sample_items(data, having, self.max_items, "localisation")
        asked = [(i, label) for i, row in enumerate(rows) for label in sorted({b.label for b in boxes[row]})]
        try:
            vectors, windows = encoder.patches(data.items.select(rows, keep_in_memory=True))
        except ModelError as error:
            return ProbeResult("localisation", data.name, [], "", self.version, {"not_measured": str(error)})
        labels = sorted({label for _, label in asked})
        prompts = [data.classes[name].positive if name in data.classes else [name] for name in labels]
        meant = dict(zip(labels, class_vectors(encoder, prompts), strict=True))
        scores: dict[int, list[tuple[float, ...]]] = {}
        for i, label in asked:
            heat = np.round(vectors[i].astype(np.float64) @ meant[label], 6)
            inside = _covered([b for b in boxes[rows[i]] if b.label == label], windows[i], heat.shape)
            if inside.any() and not inside.all():
                scores.setdefault(i, []).append(_scores(heat, inside))
        if not scores:
            return not_measured("localisation", data, self.version, "boxes inside what the model sees")
        places = np.array(rows)[sorted(scores)]
        point, contrast, overlap, area = np.array([np.mean(scores[i], axis=0) for i in sorted(scores)]).T
        metrics = [
            metric("pointing", data.items, places, point, chance=float(area.mean())),
            metric("contrast_to_noise", data.items, places, contrast, chance=0.0, unit="ratio"),
            metric("mean_iou", data.items, places, overlap),
        ]
        details: dict[str, Any] = {"items": len(scores), "with_boxes": len(having), "unreadable_boxes": bad}
        details["maps_outside_the_view_or_filling_it"] = len(asked) - sum(map(len, scores.values()))
        return ProbeResult("localisation", data.name, metrics, "pointing", self.version, details)


def heat_maps(encoder: Any, items: Dataset, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(n, rows, columns) cosines of each item's patches with its text, and (n, 4) the part of each picture
    that the map covers: left, top, right, bottom, in pixels. For figures; `encoder` has `patches`.

    Raises: ModelError for a family without a grid of patches.
    """
    vectors, windows = encoder.patches(items)
    meant = encoder.texts(list(texts)).astype(np.float64)
    maps: np.ndarray = np.einsum("nhwd,nd->nhw", vectors.astype(np.float64), meant)
    return np.round(maps, 6), windows


def _covered(boxes: Sequence[Box], window: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(rows, columns) of fine cells: whether the centre of each lies in a box."""
    left, top, right, bottom = window
    high, wide = shape[0] * _FINE, shape[1] * _FINE
    y = top + (np.arange(high) + 0.5) / high * (bottom - top)
    x = left + (np.arange(wide) + 0.5) / wide * (right - left)
    inside = np.zeros((high, wide), dtype=bool)
    for box in boxes:
        inside |= np.outer((y >= box.top) & (y < box.bottom), (x >= box.left) & (x < box.right))
    return inside


def _scores(heat: np.ndarray, inside: np.ndarray) -> tuple[float, float, float, float]:
    """Pointing, contrast, mean IoU, and the share of the view that the boxes cover."""
    fine = np.kron(heat, np.ones((_FINE, _FINE)))
    top = fine == fine.max()
    one, other = fine[inside], fine[~inside]
    noise = float(np.sqrt(one.var() + other.var()))
    contrast = float(one.mean() - other.mean()) / noise if noise > 1e-9 else 0.0
    stretched = (fine - fine.min()) / max(float(np.ptp(fine)), 1e-9)
    overlaps = [((stretched > t) & inside).sum() / ((stretched > t) | inside).sum() for t in _THRESHOLDS]
    return float(inside[top].mean()), contrast, float(np.mean(overlaps)), float(inside.mean())
