"""Resamples, degrees of freedom and intervals, worked by hand.

Normal quantile at 97.5 %: 1.959964. Student's t of 9 degrees there: 2.262157; times √(10/9): 2.384523, whose
normal tail is 0.8550639 %.
"""

from __future__ import annotations

import numpy as np
import pytest

from domainclip.evaluation.statistics import aggregates, bootstrap

NAN = float("nan")


def names(n: int) -> list[str]:
    return [f"p{i:03d}" for i in range(n)]


def test_blocks_of_any_size_hold_the_same_draws() -> None:
    (whole,) = bootstrap.weight_blocks(names(10), 7, 0)
    blocks = list(bootstrap.weight_blocks(names(10), 7, 0, cells=30))
    assert [len(block) for block in blocks] == [3, 3, 1]
    assert (np.concatenate(blocks) == whole).all()
    assert [len(block) for block in bootstrap.weight_blocks(names(10), 2, 0, cells=1)] == [1, 1]
    assert whole.dtype == np.float64


def test_the_jackknife_leaves_out_one_group_after_the_other() -> None:
    scores, groups = np.array([1.0, 2, 3, 10]), ["a", "a", "b", "c"]
    first, second = bootstrap.jackknife(aggregates.mean, [scores, -scores], groups)
    assert first.tolist() == [13 / 2, 13 / 3, 2]
    assert second.tolist() == [-13 / 2, -13 / 3, -2]
    # With two values for three groups, the first and the third are left out together.
    assert bootstrap.jackknife(aggregates.mean, [scores], groups, most=2)[0].tolist() == [1.5 + 1.5, 13 / 3]


@pytest.mark.parametrize(("groups", "values"), [(99, 99), (100, 100), (250, 100)])
def test_the_jackknife_has_at_most_a_hundred_values(groups: int, values: int) -> None:
    (left_out,) = bootstrap.jackknife(aggregates.mean, [np.arange(groups)], names(groups))
    assert len(left_out) == values


def test_the_jackknife_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.arange(7.0) ** 2
    (whole,) = bootstrap.jackknife(aggregates.mean, [scores], names(7))
    monkeypatch.setattr(bootstrap, "_CELLS", 21)
    assert bootstrap.jackknife(aggregates.mean, [scores], names(7))[0].tolist() == whole.tolist()
    assert whole.tolist() == [(91 - score) / 6 for score in scores]


@pytest.mark.parametrize(
    ("left_out", "groups", "expected"),
    [
        ([1, -1] * 10, 20, 19.0),  # equal influence: all groups count
        # Σ² = 4·16 + 56 = 120, Σ⁴ = 4·256 + 56 = 1080, excess = 1080 − 120²/60 = 840: 2·120²/840.
        ([4, -4, 4, -4] + [1, -1] * 28, 60, 2 * 120**2 / 840),
        ([NAN, 4, -4, 4, -4] + [1, -1] * 28, 61, 2 * 120**2 / 840),  # without the undefined value
        ([104, 96, 104, 96] + [101, 99] * 28, 60, 2 * 120**2 / 840),  # around their mean
        ([1] + [0] * 24, 25, 10.0),  # 2.3, but never below 10 …
        ([1] + [0] * 8, 9, 4.0),  # … or half of the groups less one
        ([NAN, NAN], 30, 29.0),
        ([5.0] * 30, 30, 29.0),
    ],
)
def test_degrees_of_freedom(left_out: list[float], groups: int, expected: float) -> None:
    assert bootstrap.degrees_of_freedom(np.array(left_out, float), groups) == pytest.approx(expected)


def test_an_interval_of_another_level_or_with_degrees_of_freedom() -> None:
    values = np.arange(101.0)
    assert bootstrap.interval(values, level=0.8) == pytest.approx((10, 90))
    assert bootstrap.interval(values, df=9) == pytest.approx((0.8550639, 99.1449361))


def test_an_interval_of_a_share_on_the_logit_scale() -> None:
    """Spread 0.1 at 0.8: 2.384523·0.1/0.16 = 1.490327 to both sides of logit 0.8 = 1.386294."""
    values = np.array([0.7, 0.9, NAN] * 50)
    found = bootstrap.share_interval(values, 0.8, df=9)
    assert found == pytest.approx((0.4740153, 0.9466786))
    assert bootstrap.share_interval(values, 0.8, df=9, level=0.9) == pytest.approx((0.5445379, 0.9304721))
    reaching_both_ends = np.array([0.0, 1.0] * 50)  # spread 0.5 at 0.5
    low, high = bootstrap.share_interval(reaching_both_ends, 0.5, df=9)
    assert high == pytest.approx(1 / (1 + np.exp(-2.384523 * 0.5 / 0.25)))
    assert low == pytest.approx(1 - high)


@pytest.mark.parametrize(
    ("values", "value"),
    [
        ([0.2, 0.8], 0.0),  # the logit of 0 and 1 is infinite
        ([0.2, 0.8], 1.0),
        ([0.5, 0.5], 0.5),  # no spread
        ([-0.1, 0.8], 0.5),  # no share
        ([0.2, 1.1], 0.5),
        ([2.0, 3.0], 2.5),
    ],
)
def test_what_is_no_share_inside_0_and_1_gets_percentiles(values: list[float], value: float) -> None:
    drawn = np.array(values * 40)
    found = bootstrap.share_interval(drawn, value, df=9, level=0.5)
    assert found == bootstrap.interval(drawn, 0.5, 9)


def test_no_share_of_undefined_values() -> None:
    assert np.isnan(bootstrap.share_interval(np.array([NAN, NAN]), 0.5, df=9)).all()


def test_bca_without_skew_moves_by_twice_the_bias() -> None:
    """Seven tenths of the values lie below: bias 0.524401; normal tails of 2·0.524401 ∓ 1.959964."""
    found = bootstrap.bca(np.arange(100.0), 69.5, np.array([-1.0, 1.0]))
    assert found == pytest.approx((99 * 0.18110476, 99 * 0.99868844))


def test_bca_without_bias_moves_by_the_skew() -> None:
    """Influences −1, −1, −1, 3: skew 24/(6·12^1.5) = 0.096225; ties with the value count half."""
    left_out = np.array([0.0, 0, 0, -4])
    values = np.append(np.arange(101.0), NAN)
    assert bootstrap.bca(values, 50.0, left_out) == pytest.approx((4.95767, 99.214376))
    assert bootstrap.bca(values, 50.0, left_out, df=9) == pytest.approx((2.622009, 99.901453))


def test_bca_with_bias_and_skew() -> None:
    found = bootstrap.bca(np.arange(100.0), 69.5, np.array([0.0, 0, 0, -4]))
    assert found == pytest.approx((99 * 0.23058344, 99 * 0.99992445))


@pytest.mark.parametrize(
    ("values", "value", "left_out"),
    [
        ([1.0, 2.0], 0.5, [0.0, 1.0]),  # all values lie above
        ([1.0, 2.0], 2.5, [0.0, 1.0]),
        ([1.0, 2.0], 1.5, [1.0, 1.0]),  # no influence of any group
        ([1.0, 2.0], 1.5, [1.0, NAN]),  # undefined without some group
        ([NAN], 1.5, [0.0, 1.0]),
    ],
)
def test_bca_that_does_not_exist(values: list[float], value: float, left_out: list[float]) -> None:
    assert bootstrap.bca(np.array(values), value, np.array(left_out)) is None


def test_p_with_degrees_of_freedom_is_that_of_the_expanded_interval() -> None:
    """2·t₉(2.326348·√0.9) for 2/100; equal models stay at 1, undefined resamples do not count."""
    values = np.append(np.ones(99), NAN)
    assert bootstrap.p_value(values, 9) == pytest.approx(0.05471526)
    assert bootstrap.p_value(-values, 9) == pytest.approx(0.05471526)
    assert bootstrap.p_value(np.array([-1.0] * 10 + [1.0] * 89), 9) == pytest.approx(0.27451118)
    assert bootstrap.p_value(np.zeros(99), 9) == 1.0
    assert np.isnan(bootstrap.p_value(np.array([NAN])))
