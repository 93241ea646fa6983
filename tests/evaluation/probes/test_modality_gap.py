from __future__ import annotations

import numpy as np
import pytest

from domainclip.evaluation.base import Probe
from domainclip.evaluation.probes.modality_gap import ModalityGap
from tests.evaluation.probes.array_encoder import ArrayEncoder, CollapsedEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import (
    WordEncoder,
    clusters,
    metric_of,
    metric_value,
    scores_by_id,
    shuffled,
)
from tests.evaluation.statistics.weights import bootstrap_weights

ROWS = [{"id": "0", "texts": ["a"]}, {"id": "1", "texts": ["b", "ignored"]}]


def test_it_is_a_probe() -> None:
    assert isinstance(ModalityGap(), Probe)


def test_four_metrics_by_hand() -> None:
    """Images e1, e2; captions e1, e3: means (1/2, 1/2, 0) and (1/2, 0, 1/2), squared distances 0 and 2."""
    model = ArrayEncoder(
        {"0": [1, 0, 0], "1": [0, 1, 0]}, {"a": [1, 0, 0], "b": [0, 0, 1], "ignored": [1, 1, 1]}
    )
    results = ModalityGap()(model, evaluation_set(ROWS))
    assert metric_value(results, "modality_gap") == pytest.approx(np.sqrt(0.5))
    assert metric_value(results, "alignment") == pytest.approx((0 + 2) / 2)
    assert metric_value(results, "image_uniformity") == pytest.approx(
        -2 * 2
    )  # one pair, at squared distance 2
    assert metric_value(results, "text_uniformity") == pytest.approx(-2 * 2)
    assert [metric.chance for metric in results.metrics] == [None] * 4
    assert not any(metric.higher_is_better for metric in results.metrics)


def test_uniformity_equals_the_code_of_the_paper() -> None:
    from scipy.spatial.distance import pdist

    model, data = clusters(n=45)
    results = ModalityGap()(model, data)
    images = model.images(data.items).astype(float)
    # The paper's code: torch.pdist(x, p=2).pow(2).mul(-t).exp().mean().log(), with t = 2.
    assert metric_value(results, "image_uniformity") == pytest.approx(
        np.log(np.exp(-2 * pdist(images) ** 2).mean())
    )


def test_resamples_of_a_mean_over_pairs_have_the_correct_spread() -> None:
    """The standard deviation of the metric over many sets of 80, against that of the resamples of one set."""
    rng = np.random.default_rng(0)
    values, spreads = [], []
    for _ in range(60):
        images = {f"{i}": rng.normal(loc=(1.5, 0, 0)) for i in range(80)}
        data = evaluation_set([{"id": f"{i}", "texts": [f"{i}"]} for i in range(80)])
        results = ModalityGap()(WordEncoder(images), data)
        metric = metric_of(results, "image_uniformity")
        weights = bootstrap_weights(metric.ids, 200, 0)
        values.append(metric_value(results, "image_uniformity"))
        spreads.append(metric.aggregate(metric.scores, weights).std())
    assert np.mean(spreads) / np.std(values) == pytest.approx(1, abs=0.25)


def test_moving_all_captions_away_widens_the_gap_alone() -> None:
    rng = np.random.default_rng(1)
    images = {f"{i}": [*rng.normal(size=4), 0] for i in range(30)}
    near = {f"t{i}": images[f"{i}"] for i in range(30)}
    far = {name: [*vector[:4], 3.0] for name, vector in near.items()}
    data = evaluation_set([{"id": f"{i}", "texts": [f"t{i}"]} for i in range(30)])
    together, apart = (
        ModalityGap()(ArrayEncoder(images, near), data),
        ModalityGap()(ArrayEncoder(images, far), data),
    )
    assert metric_value(together, "modality_gap") == pytest.approx(0, abs=1e-6)
    assert metric_value(apart, "modality_gap") > 0.5
    assert metric_value(apart, "alignment") > metric_value(together, "alignment")
    assert metric_value(apart, "image_uniformity") == metric_value(together, "image_uniformity")


def test_a_collapsed_model_has_no_gap_and_no_spread() -> None:
    _, data = clusters()
    results = ModalityGap()(CollapsedEncoder(), data)
    assert [metric_value(results, metric.name) for metric in results.metrics] == pytest.approx([0, 0, 0, 0])


def test_results_do_not_depend_on_row_order() -> None:
    model, data = clusters()
    first, second = ModalityGap(max_items=40)(model, data), ModalityGap(max_items=40)(model, shuffled(data))
    for metric in first.metrics:
        assert scores_by_id(first, metric.name) == pytest.approx(scores_by_id(second, metric.name))
    assert first.details["items"] == 40


def test_missing_input_is_reported() -> None:
    results = ModalityGap()(CollapsedEncoder(), evaluation_set([{"id": "0", "texts": ["a"]}, {"id": "1"}]))
    assert results.details == {"not_measured": "there are no two items with captions"}
