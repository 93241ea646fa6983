"""Aggregates by hand, at their edges: no item, one item, items that were not drawn."""

from __future__ import annotations

import numpy as np
import pytest

from domainclip.evaluation.statistics import aggregates

NAN = float("nan")


def test_a_pooled_mean_divides_sums_by_numbers() -> None:
    """Two words right of four, one of one, none of five: 3 of 10; with the first item twice, 5 of 14."""
    scores = np.array([[2.0, 4], [1, 1], [0, 5]])
    weights = np.array([[1.0, 1, 1], [2, 1, 1], [0, 0, 0]])
    assert aggregates.pooled_mean(scores, weights) == pytest.approx([0.3, 5 / 14, NAN], nan_ok=True)


def test_the_median_of_one_item_drawn_once_or_twice() -> None:
    assert aggregates.median(np.array([3.5]), np.array([[1.0], [2.0]])).tolist() == [3.5, 3.5]
    assert aggregates.median(np.array([3.0, 1.0]), np.array([[1.0, 0.0], [0.0, 1.0]])).tolist() == [3.0, 1.0]


def test_sums_by_level_of_no_item() -> None:
    """(r, 0) sums: of no item there is no level, and no mean."""
    assert aggregates.by_level(np.zeros((3, 0)), np.zeros(0, int)).shape == (3, 0)
    none = aggregates.macro_mean(np.zeros(0), np.zeros((3, 0)), np.zeros(0, int))
    assert none.shape == (3,)
    assert np.isnan(none).all()


def test_sums_by_level_ascend() -> None:
    assert aggregates.by_level(np.array([[1.0, 2, 4, 8]]), np.array([5, 2, 5, 3])).tolist() == [[2, 8, 5]]


def test_column_means_leave_out_what_was_not_measured() -> None:
    scores = np.array([[1.0, NAN], [0.0, 1.0], [NAN, 0.5]])
    weights = np.array([[1.0, 1, 1], [3, 1, 0]])
    assert aggregates.column_means(scores, weights).tolist() == [[0.5, 0.75], [0.75, 1.0]]
    assert aggregates.mean_of_columns(scores, weights).tolist() == [0.625, 0.875]
