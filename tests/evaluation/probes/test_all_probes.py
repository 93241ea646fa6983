"""What must hold of every probe on the disk, whoever wrote it."""

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
    """A direction that depends on these words alone."""
    seed = int.from_bytes(hashlib.blake2b(repr(of).encode(), digest_size=8).digest(), "big")
    drawn: np.ndarray = np.random.default_rng(seed).normal(size=WIDTH)
    return drawn


class Seeing(Encoder):
    """A model that half knows: a picture looks like its name, a text like the class it names."""

    scale, bias = 20.0, None
    has_raw_texts = has_patches = True

    def __init__(self, knows: float = 1.0) -> None:
        self.knows = knows

    def images(self, items: Dataset) -> np.ndarray:
        rows = [
            vector(name) + self.knows * sum((vector(label) for label in labels), np.zeros(WIDTH))
            for name, labels in zip(items["id"], items["labels"], strict=True)
        ]
        return self._unit(rows)

    def texts(self, texts: list[str]) -> np.ndarray:
        return self._unit(self._said(texts))

    def raw_texts(self, texts: list[str]) -> np.ndarray:
        return np.asarray(self._said(texts), dtype=np.float32)

    def patches(self, items: Dataset) -> tuple[np.ndarray, np.ndarray]:
        rows = [self._unit([vector(name, i) for i in range(PATCHES)]) for name in items["id"]]
        return np.stack(rows).reshape(len(rows), 3, 3, WIDTH), np.array([[0, 0, 24, 24]] * len(rows))

    def _said(self, texts: list[str]) -> list[np.ndarray]:
        signs = [-1.0 if text.startswith(("no ", "without ")) else 1.0 for text in texts]
        known = [
            sign * sum((vector(name) for name in ANIMALS if name in text), np.zeros(WIDTH))
            for sign, text in zip(signs, texts, strict=True)
        ]
        return [0.5 * vector(text) + self.knows * one for text, one in zip(texts, known, strict=True)]

    def _unit(self, rows: list[np.ndarray]) -> np.ndarray:
        vectors = np.asarray(rows, dtype=np.float32).reshape(-1, WIDTH)
        unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


class Collapsed(Seeing):
    """Everything is the same to it."""

    def _unit(self, rows: list[np.ndarray]) -> np.ndarray:
        return np.full((len(rows), WIDTH), WIDTH**-0.5, dtype=np.float32)

    def _said(self, texts: list[str]) -> list[np.ndarray]:
        return [np.ones(WIDTH)] * len(texts)


@cache
def picture(i: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (24, 24), (40 + 4 * i % 200, 30, 90)).save(file, "PNG")
    return file.getvalue()


def rows(prefix: str, several: bool) -> list[dict[str, Any]]:
    made = []
    for i in range(N):
        label = ANIMALS[i % len(ANIMALS)]
        labels = sorted({label, ANIMALS[(i // 3) % len(ANIMALS)]}) if several else [label]
        said = (
            f"a {label} number {prefix}{i} beside the old stone wall, looking at trees. It rained that day."
        )
        other = f"ein Bild {i} mit {label} an einer alten Mauer"
        made.append(
            {
                "id": f"{prefix}{i:03d}",
                "labels": labels,
                "texts": [said, f"picture {prefix}{i} of one {label}, taken outside", other],
                "group": f"{prefix}g{i // 2:02d}",
                "meta": {
                    "sex": "MF"[i // 2 % 2],
                    "age": 20 + i,
                    "boxes": [{"label": label, "box": [2, 2, 10, 10]}],
                },
                "image": {"path": None, "bytes": picture(i)},
            }
        )
    return made


def made_set(kind: str, order: list[int] | None = None) -> EvaluationSet:
    """48 items of 24 groups with splits beside them; classes by single label, by several, or none."""
    several = kind == "several"
    prompts = {
        name: {"positive": [f"a {name}", f"one {name}"], "negative": [f"no {name}", f"without {name}"]}
        for name in ANIMALS
    }
    single: dict[str, Any] = {name: one["positive"] for name, one in prompts.items()}
    classes = {} if kind == "captions" else prompts if several else single

    def split(prefix: str) -> Dataset:
        found = evaluation_set(rows(prefix, several), classes, multi_label=several).items
        return found.map(lambda row: {**row, "language": ["en", "en", "de"][: len(row["texts"])]})

    whole = evaluation_set(rows("t", several), classes, multi_label=several)
    items = split("t").select(order or range(N))
    return replace(whole, items=items, train=split("r"), validation=split("v"))


def whole(metric: Metric) -> float:
    return aggregates.point_estimate(metric.aggregate, metric.scores)


@cache
def measured(name: str, kind: str, model: str, permuted: bool = False) -> ProbeResult:
    order = np.random.default_rng(5).permutation(N).tolist() if permuted else None
    probe: Probe = registry.build("probes", name, {}, name)
    encoder = {"seeing": Seeing(), "collapsed": Collapsed()}[model]
    return probe(encoder, made_set(kind, order))  # type: ignore[arg-type]


CASES = [(name, kind) for name in registry.names("probes") for kind in SETS]


def test_probes_were_found() -> None:
    assert {"zero_shot", "retrieval", "calibration", "subgroups"} <= set(registry.names("probes"))


@pytest.mark.parametrize("name", registry.names("probes"))
def test_it_measures_something_or_says_why(name: str) -> None:
    found = [measured(name, kind, "seeing") for kind in SETS]
    for results in found:
        assert isinstance(registry.build("probes", name, {}, name), Probe)
        assert results.version == registry.find("probes", name).version
        assert bool(results.metrics) == (results.primary in [metric.name for metric in results.metrics])
        assert results.metrics or results.details["not_measured"].startswith("there ")
        json.dumps(results.details, allow_nan=False)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_metrics_are_whole(name: str, kind: str) -> None:
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
        if metric.chance is not None:
            assert whole(metric) == pytest.approx(metric.chance, abs=1e-9), metric.name


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("model", ["seeing", "collapsed"])
def test_the_order_of_the_rows_changes_no_digit(name: str, kind: str, model: str) -> None:
    plain, permuted = measured(name, kind, model), measured(name, kind, model, permuted=True)
    assert [metric.name for metric in plain.metrics] == [metric.name for metric in permuted.metrics]
    for one, other in zip(plain.metrics, permuted.metrics, strict=True):
        # Sums over another order may differ in their last bit; nothing that is printed may.
        assert whole(one) == pytest.approx(whole(other), abs=1e-9, nan_ok=True), one.name
        assert one.chance == pytest.approx(other.chance, abs=1e-9), one.name


def test_the_seeing_model_sees() -> None:
    """Else the tests above would pass on models that know nothing."""
    for name, kind in (("zero_shot", "single"), ("zero_shot", "several"), ("retrieval", "captions")):
        results = measured(name, kind, "seeing")
        metric = next(one for one in results.metrics if one.name == results.primary)
        assert metric.chance is not None
        assert whole(metric) > metric.chance + 0.05
