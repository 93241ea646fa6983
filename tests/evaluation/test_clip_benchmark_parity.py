"""Metrics equal those of CLIP_benchmark, whose definitions in metrics/ are repeated here, on the same embeddings.

Ties are an intended difference: CLIP_benchmark resolves them by the order of rows, this project by expectation.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from domainclip.evaluation.base import ProbeResult
from domainclip.evaluation.probes.retrieval import Retrieval
from domainclip.evaluation.probes.zero_shot import ZeroShot
from domainclip.evaluation.statistics import aggregates
from tests.evaluation.probes.array_encoder import ArrayEncoder, CollapsedEncoder, evaluation_set

TEMPLATES = ("a photo of a {}.", "a drawing of a {}.", "the {} there.")
NAMES = tuple(f"thing {i}" for i in range(11))
WIDTH = 6


def value_of(results: ProbeResult, name: str) -> float:
    metric = next(metric for metric in results.metrics if metric.name == name)
    return aggregates.point_estimate(metric.aggregate, metric.scores)


def classifier(model: ArrayEncoder) -> torch.Tensor:
    """zero_shot_classifier of metrics/zeroshot_classification.py: normalise, mean, normalise, by class."""
    columns = []
    for name in NAMES:
        embedded = torch.tensor(model.texts([template.format(name) for template in TEMPLATES])).double()
        mean = torch.nn.functional.normalize(embedded, dim=-1).mean(dim=0)
        columns.append(mean / mean.norm())
    return torch.stack(columns, dim=1)


def accuracy(output: torch.Tensor, target: torch.Tensor, topk: tuple[int, ...]) -> list[float]:
    """accuracy of metrics/zeroshot_classification.py."""
    predicted = output.topk(max(topk), 1, True, True)[1].t()
    correct = predicted.eq(target.view(1, -1).expand_as(predicted))
    return [float(correct[:k].reshape(-1).float().sum(0)) / len(target) for k in topk]


@pytest.mark.parametrize("seed", range(5))
def test_classification(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 11, 60)
    texts = {t.format(name): rng.normal(size=WIDTH).tolist() for name in NAMES for t in TEMPLATES}
    rows = [{"id": f"{i:02d}", "labels": [NAMES[c]]} for i, c in enumerate(truth)]
    model = ArrayEncoder({str(row["id"]): rng.normal(size=WIDTH).tolist() for row in rows}, texts)
    data = evaluation_set(rows, {name: [t.format(name) for t in TEMPLATES] for name in NAMES})
    logits = 100.0 * torch.tensor(model.images(data.items)).double() @ classifier(model)
    acc1, acc5 = accuracy(logits, torch.tensor(truth), (1, 5))
    results = ZeroShot()(model, data)
    assert value_of(results, "accuracy") == pytest.approx(acc1)
    assert value_of(results, "top5_accuracy") == pytest.approx(acc5)
    recall = balanced_accuracy_score(truth, logits.argmax(dim=1).numpy())
    every = "macro_accuracy_all_classes"  # where the headline leaves rare classes out
    has_rare = every in [metric.name for metric in results.metrics]
    assert value_of(results, every if has_rare else "macro_accuracy") == pytest.approx(recall)


def average_precision_per_class(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """average_precision_per_class of metrics/zeroshot_classification.py."""
    precision = torch.zeros(scores.size(1))
    rank = torch.arange(1, scores.size(0) + 1).float()
    for k in range(scores.size(1)):
        order = torch.sort(scores[:, k], 0, True)[1]
        truth = targets[:, k][order]
        precision[k] = truth.float().cumsum(0).div(rank)[truth.bool()].sum() / max(float(truth.sum()), 1)
    return precision


def test_mean_average_precision_of_several_labels() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (50, 11))
    rows = [
        {"id": f"{i:02d}", "labels": [name for name, holds in zip(NAMES, row, strict=True) if holds]}
        for i, row in enumerate(truth)
    ]
    texts = {t.format(name): rng.normal(size=WIDTH).tolist() for name in NAMES for t in TEMPLATES}
    model = ArrayEncoder({str(row["id"]): rng.normal(size=WIDTH).tolist() for row in rows}, texts)
    classes = {name: [t.format(name) for t in TEMPLATES] for name in NAMES}
    data = evaluation_set(rows, classes, multi_label=True)
    logits = torch.tensor(model.images(data.items)).double() @ classifier(model)
    expected = average_precision_per_class(logits, torch.tensor(truth)).mean()
    assert value_of(ZeroShot()(model, data), "macro_auprc") == pytest.approx(float(expected), abs=1e-6)


def recall_at_k(scores: torch.Tensor, positive: torch.Tensor, k: int) -> torch.Tensor:
    """recall_at_k of metrics/zeroshot_retrieval.py."""
    picked = torch.nn.functional.one_hot(torch.topk(scores, k, dim=1)[1], num_classes=scores.shape[1])
    return (picked.sum(dim=1) * positive).sum(dim=1) / positive.sum(dim=1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 5, 10])
def test_retrieval(seed: int, k: int) -> None:
    """All captions differ and each image is alone in its group: then both definitions agree."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = [
        {"id": f"{i:02d}", "texts": [f"text {i} {j}" for j in range(rng.integers(1, 4))]} for i in range(25)
    ]
    texts = {text: rng.normal(size=WIDTH).tolist() for row in rows for text in row["texts"]}
    model = ArrayEncoder({row["id"]: rng.normal(size=WIDTH).tolist() for row in rows}, texts)
    data = evaluation_set(rows)
    image_of = torch.tensor([i for i, row in enumerate(rows) for _ in row["texts"]])
    scores = (
        torch.tensor(model.texts(list(texts))).double() @ torch.tensor(model.images(data.items)).double().t()
    )
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(scores)), image_of] = True
    to_image = (recall_at_k(scores, positive, k) > 0).float().mean().item()
    to_text = (recall_at_k(scores.T, positive.T, k) > 0).float().mean().item()
    results = Retrieval()(model, data)
    assert value_of(results, f"text_to_image_r{k}") == pytest.approx(to_image)
    assert value_of(results, f"image_to_text_r{k}") == pytest.approx(to_text)


def test_the_two_differ_in_ties() -> None:
    labels = torch.tensor([[1], [0], [1], [0]])
    flat = torch.zeros(4, 1)
    theirs = [
        float(average_precision_per_class(flat, labels[order])) for order in ([0, 2, 1, 3], [1, 3, 0, 2])
    ]
    assert theirs == pytest.approx([1.0, 5 / 12])
    ours = partial(aggregates.average_precision, labels=labels[:, 0].double().numpy())
    assert aggregates.point_estimate(ours, np.zeros(4)) == 0.5 == average_precision_score(labels, flat)
    rows = [{"id": f"{i}", "labels": [NAMES[0]]} for i in range(4)]
    data = evaluation_set(rows, {name: [name] for name in NAMES})
    acc1 = accuracy(torch.zeros(4, 11), torch.zeros(4, dtype=torch.long), (1,))[0]
    assert acc1 in (0.0, 1.0)  # a sort puts the same one of the eleven first for all items
    assert value_of(ZeroShot()(CollapsedEncoder(), data), "accuracy") == pytest.approx(1 / 11)
