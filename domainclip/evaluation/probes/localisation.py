"""Localisation: maps of patch-text similarity compared with boxes."""

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

_FINE = 8  # cells along the edge of a patch, so that boxes can cover part of one
_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True, kw_only=True)
class Localisation(Probe):
    """Pointing game [arXiv:1608.00507], contrast to noise and mean IoU [arXiv:2204.09817].

    A map is the cosine of each patch with the text of one label. Pointing: whether its highest patch lies in
    a box of that label. Contrast: (mean inside - mean outside) / sqrt(var inside + var outside), with its
    sign, so that a map that points away scores below 0. Mean IoU: of the cells above thresholds 0.1 to 0.5
    with the boxes, mean over the five; the map is first rescaled to 0 to 1, as cosines of different models
    have different ranges (those of the paper do not need it). Boxes come from the `meta` column; see
    data/images/boxes.py.
    """

    citation: ClassVar[str] = "arXiv:2204.09817, arXiv:1608.00507"
    version: ClassVar[int] = 1

    max_items: Annotated[int, Field(ge=1)] = 128  # items; each is encoded again

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Three metrics; the score of an item is the mean over its labels."""
        boxes, unreadable = read_boxes(data.items)
        with_boxes = [row for row, item_boxes in enumerate(boxes) if item_boxes]
        if not with_boxes:
            return not_measured("localisation", data, self.version, "items with boxes")
        if not encoder.has_patches:
            return not_measured("localisation", data, self.version, "embeddings of patches for this model")
        rows = sample_items(data, with_boxes, self.max_items, "localisation")
        queries = [
            (i, label) for i, row in enumerate(rows) for label in sorted({b.label for b in boxes[row]})
        ]
        try:
            vectors, windows = encoder.patches(data.items.select(rows, keep_in_memory=True))
        except ModelError as error:
            return ProbeResult("localisation", data.name, [], "", self.version, {"not_measured": str(error)})
        labels = sorted({label for _, label in queries})
        prompts = [data.classes[name].positive if name in data.classes else [name] for name in labels]
        text_vectors = dict(zip(labels, class_vectors(encoder, prompts), strict=True))
        scores: dict[int, list[tuple[float, ...]]] = {}
        for i, label in queries:
            heat = np.round(vectors[i].astype(np.float64) @ text_vectors[label], 6)
            inside = _inside_mask([b for b in boxes[rows[i]] if b.label == label], windows[i], heat.shape)
            if inside.any() and not inside.all():
                scores.setdefault(i, []).append(_scores(heat, inside))
        if not scores:
            return not_measured("localisation", data, self.version, "boxes inside the input of the model")
        places = np.array(rows)[sorted(scores)]
        point, contrast, overlap, area = np.array([np.mean(scores[i], axis=0) for i in sorted(scores)]).T
        metrics = [
            metric("pointing", data.items, places, point, chance=float(area.mean())),
            metric("contrast_to_noise", data.items, places, contrast, chance=0.0, unit="ratio"),
            metric("mean_iou", data.items, places, overlap),
        ]
        details: dict[str, Any] = {
            "items": len(scores),
            "with_boxes": len(with_boxes),
            "unreadable_boxes": unreadable,
        }
        details["maps_outside_the_view_or_filling_it"] = len(queries) - sum(map(len, scores.values()))
        return ProbeResult("localisation", data.name, metrics, "pointing", self.version, details)


def heat_maps(encoder: Encoder, items: Dataset, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(n, rows, columns) cosines of each item's patches with its text, and (n, 4) the window of each image
    that the map covers: left, top, right, bottom, in pixels. For plots; `encoder` has `patches`.

    Raises: ModelError for a family without a grid of patches.
    """
    vectors, windows = encoder.patches(items)
    text_vectors = encoder.texts(list(texts)).astype(np.float64)
    maps: np.ndarray = np.einsum("nhwd,nd->nhw", vectors.astype(np.float64), text_vectors)
    return np.round(maps, 6), windows


def _inside_mask(boxes: Sequence[Box], window: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
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
    """Pointing, contrast, mean IoU, and the share of the map that the boxes cover."""
    fine = np.kron(heat, np.ones((_FINE, _FINE)))
    at_maximum = fine == fine.max()
    inside_values, outside_values = fine[inside], fine[~inside]
    noise = float(np.sqrt(inside_values.var() + outside_values.var()))
    contrast = float(inside_values.mean() - outside_values.mean()) / noise if noise > 1e-9 else 0.0
    rescaled = (fine - fine.min()) / max(float(np.ptp(fine)), 1e-9)
    overlaps = [((rescaled > t) & inside).sum() / ((rescaled > t) | inside).sum() for t in _THRESHOLDS]
    return float(inside[at_maximum].mean()), contrast, float(np.mean(overlaps)), float(inside.mean())
