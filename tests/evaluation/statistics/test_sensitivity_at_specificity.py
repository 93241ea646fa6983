"""Sensitivity at a given specificity: ties by hand, torchmetrics, and the error rate between equal models."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_sensitivity_at_specificity

from domainclip.evaluation.statistics.aggregates import (
    macro_sensitivity_at_specificity,
    point_estimate,
    sensitivity_at_specificity,
)
from domainclip.evaluation.statistics.estimates import compare_paired, too_few_groups

NAN = float("nan")


def at(labels: np.ndarray, specificity: float):  # type: ignore[no-untyped-def]
    return partial(sensitivity_at_specificity, labels=labels, specificity=specificity)


@pytest.mark.parametrize("specificity", [0.5, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_it_equals_torchmetrics_without_ties(seed: int, specificity: float) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random(60) < 0.4).astype(float)
    scores = (rng.permutation(60) + 20 * labels).astype(float)
    scores += labels / 2  # no positive ties with a negative
    expected, _ = binary_sensitivity_at_specificity(
        torch.tensor(scores / 100), torch.tensor(labels).long(), specificity
    )
    assert point_estimate(at(labels, specificity), scores) == pytest.approx(float(expected))


def test_a_resample_is_the_repeated_items() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 9, 40).astype(float), rng.integers(0, 2, 40).astype(float)
    labels[7] = NAN
    weights = rng.multinomial(40, np.full(40, 1 / 40), 8)
    found = at(labels, 0.9)(scores, weights.astype(float))
    for row, value in zip(weights, found, strict=True):
        assert value == point_estimate(at(np.repeat(labels, row), 0.9), np.repeat(scores, row))


def test_ties_at_the_threshold_count_in_parts() -> None:
    """10 negatives, of which one may be above at 90 %: 4 tie there with 5 positives, so a quarter of these."""
    scores = np.array([3.0] + [2] * 5 + [1] * 2 + [2] * 4 + [1] * 6)
    labels = np.repeat([1.0, 0.0], [8, 10])
    assert point_estimate(at(labels, 0.9), scores) == pytest.approx((1 + 5 / 4) / 8)
    # A model that gives all items one score has 1 - specificity, as at chance.
    assert point_estimate(at(labels, 0.9), np.zeros(18)) == pytest.approx(0.1)
    assert np.isnan(point_estimate(at(np.ones(18), 0.9), scores))
    assert np.isnan(point_estimate(at(np.zeros(18), 0.9), scores))


def test_the_mean_over_classes() -> None:
    scores, labels = np.array([[3.0, 1], [2, 2], [1, 3]]), np.array([[1.0, 1], [0, 0], [0, 0]])
    mean = partial(macro_sensitivity_at_specificity, labels=labels, specificity=0.9)
    assert point_estimate(mean, scores) == 0.5


def test_too_few_groups_of_either_kind_are_not_judged() -> None:
    """At 95 % specificity one negative of 20 may be above the threshold; of 19, none."""
    groups = [str(i) for i in range(29)]
    labels = np.repeat([1.0, 0.0], [10, 19])
    assert too_few_groups(at(labels, 0.9), groups) == ""
    assert too_few_groups(at(labels, 0.95), groups) == (
        "10 groups have the class and 19 do not: at least 10 and 20 are needed"
    )
    assert too_few_groups(at(1 - labels, 0.95), groups + ["29"] * 0).startswith(
        "19 groups have the class and 10"
    )
    assert too_few_groups(at(np.append(labels, 0.0), 0.95), [*groups, "29"]) == ""


def test_equal_models_are_seldom_told_apart_and_unequal_ones_are() -> None:
    """60 pairs of models whose scores have one distribution: at most 5 % are called different."""
    rng = np.random.default_rng(2)
    labels = np.repeat([1.0, 0.0], [20, 40])
    groups = [str(i) for i in range(60)]

    def claims(first: np.ndarray, second: np.ndarray) -> bool:
        difference = compare_paired(at(labels, 0.9), first, second, groups, 100, 0).difference
        assert difference is not None
        return difference.sign != 0

    found = []
    for _ in range(60):
        hard = rng.normal(size=60)  # the same images are hard for both
        found.append(claims(*(rng.normal(size=(2, 60)) + labels + hard)))
    assert sum(found) <= 3
    assert claims(rng.normal(size=60), rng.normal(size=60) + 3 * labels)
