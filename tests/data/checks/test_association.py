"""Cramér's V and tables of label frequencies, against values worked by hand and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats.contingency import association

from domainclip.data.checks.association import FrequencyTable, cramers_v, cross_validated, folds_of_groups


def test_v_is_1_where_one_determines_the_other_and_0_for_one_category() -> None:
    first = np.repeat(["a", "b", "c"], 50)
    assert cramers_v(first, np.repeat(["x", "y", "z"], 50)) == pytest.approx(1.0)
    assert cramers_v(first, np.full(150, "x")) == 0.0


def test_v_of_independent_ones_is_near_0_where_the_plain_one_is_not() -> None:
    """With 30 × 30 categories and 300 items the plain V of independent variables is about 0.3."""
    draw = np.random.default_rng(0)
    plain, corrected = [], []
    for _ in range(20):
        first, second = draw.integers(0, 30, 300), draw.integers(0, 30, 300)
        table = np.zeros((30, 30))
        np.add.at(table, (first, second), 1)
        plain.append(association(table.astype(int), method="cramer"))
        corrected.append(cramers_v(first, second))
    assert np.mean(plain) > 0.25
    assert np.mean(corrected) < 0.07


def test_v_is_the_plain_one_minus_its_bias() -> None:
    """Counts 30 10 / 10 30: φ² = 0.25; corrected 0.25 − 1/79 over 2 − 1/79 − 1."""
    first = np.repeat([0, 0, 1, 1], [30, 10, 10, 30])
    second = np.repeat([0, 1, 0, 1], [30, 10, 10, 30])
    assert cramers_v(first, second) == pytest.approx(np.sqrt((0.25 - 1 / 79) / (1 - 1 / 79)))


def test_a_table_has_the_frequencies_of_the_most_special_level_that_it_knows() -> None:
    attributes = [("north", "AP"), ("north", "AP"), ("north", "PA"), ("south", "AP")]
    labels = np.array([[1, 0], [0, 1], [0, 1], [1, np.nan]], dtype=float)
    table = FrequencyTable.fit(attributes, labels)
    found = table.predict([("north", "AP"), ("north", "lateral"), ("east", "AP"), ("south", "AP")])
    assert found[0].tolist() == [0.5, 0.5]
    assert found[1] == pytest.approx([1 / 3, 2 / 3])  # all of the north
    assert found[2] == pytest.approx([0.5, 2 / 3])  # all
    assert found[3] == pytest.approx([1.0, 2 / 3])  # the unknown one as in all


def test_folds_keep_groups_whole_and_no_item_is_predicted_from_its_group() -> None:
    groups = [f"g{i // 3}" for i in range(60)]
    folds = folds_of_groups(groups)
    assert all(len(set(folds[i : i + 3])) == 1 for i in range(0, 60, 3))
    # Each group has an attribute of its own: its label can be known only from the group itself.
    labels = np.array([[float(i // 3 % 2)] for i in range(60)])
    predicted = cross_validated([(group,) for group in groups], labels, groups)
    assert np.abs(predicted - 0.5).max() < 0.2
    assert np.isnan(cross_validated([("a",)] * 3, labels[:3], ["g"] * 3)).all()
