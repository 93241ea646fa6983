"""The standard error of a paired difference, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from domainclip.evaluation.statistics.aggregates import mean
from domainclip.evaluation.statistics.paired_error import paired_error

TEN = [f"g{i}" for i in range(10)]
BASE = np.repeat([0.2, 0.8], 5)  # both models are wrong on the same half


def test_one_seed_has_the_error_over_the_groups() -> None:
    """Differences 0.1 and 0.3 in turn: s² = 10 · 0.01 / 9, so the error is s / √10 = 1/30."""
    pair = (BASE + np.tile([0.1, 0.3], 5), BASE)
    assert paired_error(mean, [pair], TEN, 40_000, 0) == pytest.approx(1 / 30, rel=0.01)
    # Negative control: the error of one model alone is three times that.
    assert paired_error(mean, [(BASE, 0 * BASE)], TEN, 4000, 0) == pytest.approx(0.1, rel=0.03)


def test_seeds_add_their_variance() -> None:
    """Seeds differ from the base by 0.1, 0.2 and 0.3 in every item: 0.1 / √3; no item differs from another."""
    seeds = [(BASE + step, BASE) for step in (0.1, 0.2, 0.3)]
    assert paired_error(mean, seeds, TEN, 100, 0) == pytest.approx(0.1 / 3**0.5)
    rows = np.tile([-0.1, 0.1], 5)
    both = [(a + rows, b) for a, b in seeds]
    assert paired_error(mean, both, TEN, 40_000, 0) == pytest.approx((1 / 900 + 0.01 / 3) ** 0.5, rel=0.01)


def test_images_of_one_patient_count_once_and_few_patients_not_at_all() -> None:
    groups = [f"g{i}" for i in range(10) for _ in range(2)]
    pair = (np.repeat(BASE + np.tile([0.1, 0.3], 5), 2), np.repeat(BASE, 2))
    assert paired_error(mean, [pair], groups, 40_000, 0) == pytest.approx(1 / 30, rel=0.01)
    assert np.isnan(paired_error(mean, [pair], ["a", "b", "c", "d", "e"] * 4, 100, 0))
