"""Small sets with known structure, and an encoder with a vector for every text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from datasets import Dataset

from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Metric, ProbeResult
from domainclip.seeding import stable
from tests.evaluation.probes.array_encoder import evaluation_set, items


class WordEncoder(Encoder):
    """Given vectors for items and texts; any other text has a random direction, seeded by the text."""

    bias: float | None = None

    def __init__(
        self,
        images: Mapping[str, Sequence[float]],
        texts: Mapping[str, Sequence[float]] | None = None,
        scale: float = 100.0,
    ) -> None:
        self.image_vectors, self.text_vectors, self.scale = images, texts or {}, scale
        self.width = len(next(iter(images.values())))

    def images(self, items: Dataset) -> np.ndarray:
        return _unit([self.image_vectors[name] for name in items["id"]])

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return _unit([self.text_vectors.get(text, direction(text, self.width)) for text in texts])


def direction(text: str, width: int) -> np.ndarray:
    """A random vector, seeded by the text: the same on every machine."""
    return np.random.default_rng(stable(text)).normal(size=width)


def clusters(
    n: int = 60, classes: int = 3, width: int = 8, noise: float = 0.3, seed: int = 0, **options: Any
) -> tuple[WordEncoder, EvaluationSet]:
    """Items around one axis per class, in three splits; prompts lie on the axes, captions on their images."""
    rng = np.random.default_rng(seed)
    names = [f"class{i}" for i in range(classes)]
    axes = np.eye(width)[:classes]
    images, texts, splits = {}, {f"a {name}": list(axes[i]) for i, name in enumerate(names)}, {}
    for split in ("train", "validation", "test"):
        rows = []
        for i in range(n):
            vector = axes[i % classes] + noise * rng.normal(size=width)
            name = f"{split}{i:04d}"
            images[name], texts[f"caption of {name}"] = list(vector), list(vector)
            row = {"id": name, "labels": [names[i % classes]], "texts": [f"caption of {name}"]}
            rows.append({**row, "group": f"{split} group {i // 2}"})
        splits[split] = rows
    data = evaluation_set(splits["test"], {name: f"a {name}" for name in names}, **options)
    data = replace(data, train=items(splits["train"]), validation=items(splits["validation"]))
    return WordEncoder(images, texts), data


def shuffled(data: EvaluationSet, seed: int = 5) -> EvaluationSet:
    """The same set with the rows of every split in another order."""
    rng = np.random.default_rng(seed)

    def permuted(rows: Dataset | None) -> Dataset | None:
        return None if rows is None else rows.select(rng.permutation(len(rows)))

    return replace(
        data, items=permuted(data.items), train=permuted(data.train), validation=permuted(data.validation)
    )


def metric_value(results: ProbeResult, name: str) -> float:
    metric = metric_of(results, name)
    return float(metric.aggregate(metric.scores, np.ones((1, len(metric.scores))))[0])


def metric_of(results: ProbeResult, name: str) -> Metric:
    return next(metric for metric in results.metrics if metric.name == name)


def scores_by_id(results: ProbeResult, name: str) -> dict[str, Any]:
    metric = metric_of(results, name)
    return dict(zip(metric.ids, np.round(metric.scores, 9).tolist(), strict=True))


def _unit(rows: Sequence[Any]) -> np.ndarray:
    vectors = np.asarray(rows, dtype=np.float32)
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
