"""Images with several objects: matching of both, and bias to the first named and to the larger one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from domainclip.data.images.boxes import read_boxes
from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Metric, Probe, ProbeResult
from domainclip.evaluation.metrics.labelled_examples import sample_items
from domainclip.evaluation.metrics.labels import class_names, label_matrix
from domainclip.evaluation.metrics.results import metric, not_measured
from domainclip.seeding import stable

Vectors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Scene:
    """One image: two of its classes, and some that are known to be absent."""

    row: int
    present: tuple[str, str]
    absent: list[str]


@dataclass(frozen=True, kw_only=True)
class MultiObject(Probe):
    """Matching of two named objects, and the bias to the first named and the larger. [arXiv:2502.19842]

    Two labels of an image with several are sampled. `matching` (the paper's image-text matching): the text
    that names both against texts in which an absent class replaces one of them, in both orders of naming.
    `first_named` (its text-based object retrieval): how often a text of two is nearer to the text of the
    object that it names first, in both orders, so that differences between classes cancel. `larger_object`
    (its image-based object retrieval), where boxes exist: how often an image is nearer to the text of its
    larger object. For the last two 0.5 is no bias; models tend to be above, so lower counts as better.
    """

    citation: ClassVar[str] = "arXiv:2502.19842"
    version: ClassVar[int] = 1

    pair: str = "{} and {}"  # the text that names two classes
    absent: Annotated[int, Field(ge=1)] = 3  # absent classes per pair
    max_items: Annotated[int, Field(ge=1)] = 1000  # scenes at most

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Two metrics, and a third where boxes exist."""
        scenes = self._scenes(data)
        if not scenes:
            return not_measured(
                "multi_object", data, self.version, "items with two classes and a third one absent"
            )
        texts = {text for scene in scenes for order in self._orders(scene) for text in order}
        texts |= {name for scene in scenes for name in scene.present}
        vectors = dict(zip(sorted(texts), encoder.texts(sorted(texts)).astype(np.float64), strict=True))
        rows = np.array([scene.row for scene in scenes])
        images = encoder.images(data.items)[rows].astype(np.float64)
        matching, first_named = np.zeros((2, len(scenes)))
        for i, (scene, image) in enumerate(zip(scenes, images, strict=True)):
            for order in self._orders(scene):
                matching[i] += _top1_share(image, [vectors[text] for text in order]) / 2
            for naming in (scene.present, scene.present[::-1]):
                first_named[i] += (
                    _top1_share(vectors[self._pair_text(*naming)], [vectors[name] for name in naming]) / 2
                )
        chance = float(np.mean([1 / (1 + 2 * len(scene.absent)) for scene in scenes]))
        metrics = [
            metric("matching", data.items, rows, matching, chance=chance),
            metric("first_named", data.items, rows, first_named, chance=0.5, higher_is_better=False),
            *_larger(data, scenes, images, vectors),
        ]
        details = {"items": len(scenes), "pair": self.pair, "texts": len(texts)}
        return ProbeResult("multi_object", data.name, metrics, "matching", self.version, details)

    def _scenes(self, data: EvaluationSet) -> list[Scene]:
        names = class_names(data) or sorted({label for labels in data.items["labels"] for label in labels})
        labels, ids = label_matrix(data.items, names), list(data.items["id"])
        eligible = ((labels == 1).sum(axis=1) > 1) & (labels == 0).any(axis=1)
        scenes = []
        for row in sample_items(data, np.flatnonzero(eligible).tolist(), self.max_items, "multi object"):

            def by_hash(indices: np.ndarray, item: str = ids[row]) -> list[str]:
                return sorted(
                    (names[i] for i in indices), key=lambda name: (stable("object", item, name), name)
                )

            first, second, *_ = by_hash(np.flatnonzero(labels[row] == 1))
            scenes.append(
                Scene(row, (first, second), by_hash(np.flatnonzero(labels[row] == 0))[: self.absent])
            )
        return scenes

    def _orders(self, scene: Scene) -> list[list[str]]:
        """For each order of naming, the true text and those in which one class is replaced."""
        first, second = scene.present
        distractors = [(first, absent_class) for absent_class in scene.absent] + [
            (absent_class, second) for absent_class in scene.absent
        ]
        pairs = [(first, second), *distractors]
        return [[self._pair_text(*pair) for pair in pairs], [self._pair_text(*pair[::-1]) for pair in pairs]]

    def _pair_text(self, first: str, second: str) -> str:
        before, _, rest = self.pair.partition("{}")
        between, _, after = rest.partition("{}")
        return f"{before}{first}{between}{second}{after}"


def _top1_share(query: np.ndarray, answers: list[np.ndarray]) -> float:
    """The probability that the first answer is ranked first, with ties in random order."""
    cosines = np.round(np.stack(answers) @ query, 6)
    return float((cosines[0] == cosines.max()) / (cosines == cosines.max()).sum())


def _larger(data: EvaluationSet, scenes: list[Scene], images: np.ndarray, vectors: Vectors) -> list[Metric]:
    boxes, _ = read_boxes(data.items)
    rows, shares = [], []
    for scene, image in zip(scenes, images, strict=True):
        areas = [sum(b.area for b in boxes[scene.row] if b.label == name) for name in scene.present]
        if min(areas) > 0 and areas[0] != areas[1]:
            large, small = scene.present if areas[0] > areas[1] else scene.present[::-1]
            rows.append(scene.row)
            shares.append(_top1_share(image, [vectors[large], vectors[small]]))
    if not rows:
        return []
    indices, scores = np.array(rows), np.array(shares)
    return [metric("larger_object", data.items, indices, scores, chance=0.5, higher_is_better=False)]
