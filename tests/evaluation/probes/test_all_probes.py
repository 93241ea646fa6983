"""Properties of every registered probe."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from domainclip import registry
from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Metric, Probe, ProbeResult
from domainclip.evaluation.statistics import aggregates, bootstrap
from tests.evaluation.probes.array_encoder import evaluation_set

N, WIDTH, PATCHES = 48, 8, 9
ANIMALS = ("cat", "dog", "owl", "hen", "cow", "fox", "bat")
SETS = ("single", "several", "captions")


def vector(*of: object) -> np.ndarray:
    """A random vector, seeded by these values."""
    seed = int.from_bytes(hashlib.blake2b(repr(of).encode(), digest_size=8).digest(), "big")
    drawn: np.ndarray = np.random.default_rng(seed).normal(size=WIDTH)
    return drawn


class InformedEncoder(Encoder):
    """A partly informed model: an image is near its labels, a text near the classes that it names."""

    scale, bias = 20.0, None
    has_raw_texts = has_patches = True

    def __init__(self, signal: float = 1.0) -> None:
        self.signal = signal

    def images(self, items: Dataset) -> np.ndarray:
        rows = [
            vector(name) + self.signal * sum((vector(label) for label in labels), np.zeros(WIDTH))
            for name, labels in zip(items["id"], items["labels"], strict=True)
        ]
        return self._unit(rows)

    def texts(self, texts: list[str]) -> np.ndarray:
        return self._unit(self._text_vectors(texts))

    def raw_texts(self, texts: list[str]) -> np.ndarray:
        return np.asarray(self._text_vectors(texts), dtype=np.float32)

    def patches(self, items: Dataset) -> tuple[np.ndarray, np.ndarray]:
        rows = [self._unit([vector(name, i) for i in range(PATCHES)]) for name in items["id"]]
        return np.stack(rows).reshape(len(rows), 3, 3, WIDTH), np.array([[0, 0, 24, 24]] * len(rows))

    def _text_vectors(self, texts: list[str]) -> list[np.ndarray]:
        signs = [-1.0 if text.startswith(("no ", "without ")) else 1.0 for text in texts]
        known_vectors = [
            sign * sum((vector(name) for name in ANIMALS if name in text), np.zeros(WIDTH))
            for sign, text in zip(signs, texts, strict=True)
        ]
        return [
            0.5 * vector(text) + self.signal * known for text, known in zip(texts, known_vectors, strict=True)
        ]

    def _unit(self, rows: list[np.ndarray]) -> np.ndarray:
        vectors = np.asarray(rows, dtype=np.float32).reshape(-1, WIDTH)
        unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


class CollapsedInformedEncoder(InformedEncoder):
    """A model with the same embedding for every input."""

    def _unit(self, rows: list[np.ndarray]) -> np.ndarray:
        return np.full((len(rows), WIDTH), WIDTH**-0.5, dtype=np.float32)

    def _text_vectors(self, texts: list[str]) -> list[np.ndarray]:
        return [np.ones(WIDTH)] * len(texts)


@cache
def png_of(i: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (24, 24), (40 + 4 * i % 200, 30, 90)).save(file, "PNG")
    return file.getvalue()


def rows(prefix: str, several: bool) -> list[dict[str, Any]]:
    made = []
    for i in range(N):
        label = ANIMALS[i % len(ANIMALS)]
        labels = sorted({label, ANIMALS[(i // 3) % len(ANIMALS)]}) if several else [label]
        english = (
            f"a {label} number {prefix}{i} beside the old stone wall, looking at trees. It rained that day."
        )
        german = f"ein Bild {i} mit {label} an einer alten Mauer"
        made.append(
            {
                "id": f"{prefix}{i:03d}",
                "labels": labels,
                "texts": [english, f"picture {prefix}{i} of one {label}, taken outside", german],
                "group": f"{prefix}g{i // 2:02d}",
                "meta": {
                    "sex": "MF"[i // 2 % 2],
                    "age": 20 + i,
                    "boxes": [{"label": label, "box": [2, 2, 10, 10]}],
                },
                "image": {"path": None, "bytes": png_of(i)},
            }
        )
    return made


def made_set(kind: str, order: list[int] | None = None) -> EvaluationSet:
    """48 items of 24 groups, with other splits; single-label classes, multi-label classes, or none."""
    several = kind == "several"
    prompts = {
        name: {"positive": [f"a {name}", f"one {name}"], "negative": [f"no {name}", f"without {name}"]}
        for name in ANIMALS
    }
    single: dict[str, Any] = {name: sides["positive"] for name, sides in prompts.items()}
    classes = {} if kind == "captions" else prompts if several else single

    def split(prefix: str) -> Dataset:
        split_items = evaluation_set(rows(prefix, several), classes, multi_label=several).items
        return split_items.map(lambda row: {**row, "language": ["en", "en", "de"][: len(row["texts"])]})

    test_set = evaluation_set(rows("t", several), classes, multi_label=several)
    items = split("t").select(order or range(N))
    return replace(test_set, items=items, train=split("r"), validation=split("v"))


def value(metric: Metric) -> float:
    return aggregates.point_estimate(metric.aggregate, metric.scores)


@cache
def measured(name: str, kind: str, model: str, permuted: bool = False) -> ProbeResult:
    order = np.random.default_rng(5).permutation(N).tolist() if permuted else None
    probe: Probe = registry.build("probes", name, {}, name)
    encoder = {"seeing": InformedEncoder(), "collapsed": CollapsedInformedEncoder()}[model]
    return probe(encoder, made_set(kind, order))  # type: ignore[arg-type]


CASES = [(name, kind) for name in registry.names("probes") for kind in SETS]


def test_probes_are_registered() -> None:
    assert {"zero_shot", "retrieval", "calibration", "subgroups"} <= set(registry.names("probes"))


@pytest.mark.parametrize("name", registry.names("probes"))
def test_it_returns_metrics_or_a_reason(name: str) -> None:
    for kind in SETS:
        results = measured(name, kind, "seeing")
        assert isinstance(registry.build("probes", name, {}, name), Probe)
        assert results.version == registry.find("probes", name).version
        assert bool(results.metrics) == (results.primary in [metric.name for metric in results.metrics])
        assert results.metrics or results.details["not_measured"].startswith("there ")
        json.dumps(results.details, allow_nan=False)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_metrics_are_consistent(name: str, kind: str) -> None:
    results = measured(name, kind, "seeing")
    names = [metric.name for metric in results.metrics]
    assert len(names) == len(set(names))
    for metric in results.metrics:
        assert len(metric.ids) == len(metric.groups) == len(metric.scores) > 0, metric.name
        drawn = np.concatenate(list(bootstrap.weight_blocks(metric.groups, 30, seed=1)))
        values = metric.aggregate(metric.scores, drawn)
        assert values.shape == (30,), metric.name
        alone = [metric.aggregate(metric.scores, row[None])[0] for row in drawn[:3]]
        assert values[:3] == pytest.approx(alone, nan_ok=True), metric.name
        assert metric.aggregate(metric.scores, 3 * drawn) == pytest.approx(values, nan_ok=True), metric.name


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_collapsed_model_scores_chance(name: str, kind: str) -> None:
    for metric in measured(name, kind, "collapsed").metrics:
        if metric.name.startswith("negative_predictive_value"):
            assert np.isnan(value(metric))  # all answers are yes
        elif metric.chance is not None:
            assert value(metric) == pytest.approx(metric.chance, abs=1e-9), metric.name


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("model", ["seeing", "collapsed"])
def test_results_do_not_depend_on_row_order(name: str, kind: str, model: str) -> None:
    plain, permuted = measured(name, kind, model), measured(name, kind, model, permuted=True)
    assert [metric.name for metric in plain.metrics] == [metric.name for metric in permuted.metrics]
    for metric, permuted_metric in zip(plain.metrics, permuted.metrics, strict=True):
        # Sums in another order may differ in their last bit, printed digits may not.
        assert value(metric) == pytest.approx(value(permuted_metric), abs=1e-9, nan_ok=True), metric.name
        assert metric.chance == pytest.approx(permuted_metric.chance, abs=1e-9), metric.name


def test_the_informed_model_is_above_chance() -> None:
    """Else the tests above would also pass on uninformed models."""
    for name, kind in (("zero_shot", "single"), ("zero_shot", "several"), ("retrieval", "captions")):
        results = measured(name, kind, "seeing")
        metric = next(metric for metric in results.metrics if metric.name == results.primary)
        assert metric.chance is not None
        assert value(metric) > metric.chance + 0.05
