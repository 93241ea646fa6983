from __future__ import annotations

import numpy as np
import pytest

from domainclip.data.images.value_limits import percentile_limits, shares

_BOTH = (0.5, 99.5)


def test_two_percentiles() -> None:
    assert percentile_limits(np.arange(1001.0), _BOTH) == (5, 995)
    assert percentile_limits(np.arange(1001.0), (0, 100)) == (0, 1000)


def test_a_sparse_image_is_limited_by_its_rare_values() -> None:
    counts = np.zeros(100_000)
    counts[:200] = np.arange(1, 201)
    counts[200] = 1e6  # a hot pixel
    low, high = percentile_limits(counts, _BOTH)
    assert low == 0
    assert high == 200  # of 201 values the 99.5th percentile lies at 199.0, from 0: the hot pixel is above
    assert np.percentile(counts, 99.5) == 0  # the control: the plain percentiles are equal


def test_a_few_dark_pixels_in_a_bright_image() -> None:
    values = np.full(100_000, 9.0)
    values[:3] = [1, 2, 3]
    assert percentile_limits(values, _BOTH) == (2, 9)


@pytest.mark.parametrize("values", [[], [7.0], [7.0] * 9])
def test_a_single_value_gives_equal_limits(values: list[float]) -> None:
    low, high = percentile_limits(np.array(values), _BOTH)
    assert low == high
    assert not shares(np.array(values), low, high).any()


def test_shares_by_hand() -> None:
    values = np.array([-1, 0, 1, 2, 3, np.nan, np.inf, -np.inf])
    assert shares(values, 0, 2).tolist() == [0, 0, 0.5, 1, 1, 0, 1, 0]
    assert shares(np.array([-1e308, 0, 1e308]), -1e308, 1e308).tolist() == [0, 0.5, 1]
