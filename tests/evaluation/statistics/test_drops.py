"""A limit on a drop is met by a bound, and a model that loses more is seldom taken."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest

from domainclip.evaluation.statistics.aggregates import mean
from domainclip.evaluation.statistics.drops import cannot_be_shown, drop_at_most, groups_for, least_drop
from domainclip.evaluation.statistics.estimates import Estimate, compare_paired
from domainclip.training.alpha_choice import AlphaScore, choose_alpha


def test_the_bound_is_the_outer_end_of_the_interval() -> None:
    change = Estimate(-0.02, -0.05, 0.01, 0.2)
    assert drop_at_most(change, 98) == 0.05
    assert drop_at_most(Estimate(3.0, -1.0, 7.0, 0.2), 98, higher_is_better=False) == 7.0
    assert drop_at_most(Estimate(0.1, 0.05, 0.15, 0.01), 98) == 0.0  # nothing is lost
    assert drop_at_most(replace(change, low=nan), 98) == inf
    assert (drop_at_most(change, 6), drop_at_most(change, 5)) == (0.05, inf)


def test_the_least_drop_is_that_of_a_model_that_changes_nothing() -> None:
    assert least_drop(98) == pytest.approx(1.9847 * 2**0.5 / 100, abs=1e-5)
    assert least_drop(6) == pytest.approx(2.5706 * 2**0.5 / 8, abs=1e-4)  # t of 5 degrees of freedom
    assert least_drop(5) == least_drop(5, "rank") == inf
    assert least_drop(6, "rank") == 0.0
    scores = np.linspace(0, 1, 98)
    same = compare_paired(mean, scores, scores, [f"{i}" for i in range(98)], 50, 0).difference
    assert same is not None
    assert drop_at_most(same, 98) == pytest.approx(least_drop(98))


def test_the_remedy_of_a_limit_that_cannot_be_shown() -> None:
    least = least_drop(60)  # 0.0456 and some
    assert cannot_be_shown(least, 60, "share") == ""  # exactly at the limit
    assert cannot_be_shown(0.01, 60, "share") == (
        "a drop of at most 0.01 cannot be shown with 60 groups of the retention set, so the estimate decides: "
        "name a retention set of 277 groups or more, or allow a drop of 0.046"
    )
    assert cannot_be_shown(0.046, 60, "share") == ""
    assert cannot_be_shown(0.01, 4, "share").endswith("of 277 groups or more, or measure 6 groups")
    assert cannot_be_shown(0.01, 4, "rank") != ""


def test_the_size_of_set_that_shows_a_limit() -> None:
    assert [groups_for(limit) for limit in (0.005, 0.01, 0.02, 0.5, 0.9)] == [554, 277, 138, 6, 6]
    exactly = least_drop(100)
    assert groups_for(exactly) == 100
    for limit in (0.005, 0.01, 0.02, 0.1):
        groups = groups_for(limit)
        assert groups is not None
        assert least_drop(groups) <= limit < least_drop(groups - 1)
        assert cannot_be_shown(limit, groups, "share") == ""
        assert f"name a retention set of {groups} groups or more" in cannot_be_shown(
            limit, groups - 1, "share"
        )
    assert groups_for(0.0) is None
    assert "or measure 6 groups" not in cannot_be_shown(0.0, 50, "share")
    assert cannot_be_shown(0.0, 4, "share").endswith("measure 6 groups")


def _no_error(one: float, other: float) -> float:
    """The paired standard error of two scores that are known exactly."""
    return 0.0


def _tried(rng: np.random.Generator, groups: int, loss: float) -> list[AlphaScore]:
    """The base and a better model that loses so much, on groups of two images that change together."""
    names = [f"{i // 2}" for i in range(2 * groups)]
    base = np.repeat((rng.random(groups) < 0.7).astype(float), 2)
    lost = np.repeat(rng.random(groups) < loss / 0.7, 2)
    adapted = np.where(lost, 0.0, base)
    change = compare_paired(mean, base, adapted, names, 200, int(rng.integers(1 << 30))).difference
    assert change is not None
    return [
        AlphaScore(0.0, 0.0, float(base.mean()), drop_at_most=least_drop(groups)),
        AlphaScore(1.0, 1.0, float(adapted.mean()), drop_at_most=drop_at_most(change, groups)),
    ]


@pytest.mark.parametrize(
    ("groups", "floor", "loss"), [(250, 0.02, 0.025), (100, 0.05, 0.055), (300, 0.01, 0.015)]
)
def test_a_model_that_loses_more_than_the_floor_is_seldom_chosen(
    groups: int, floor: float, loss: float
) -> None:
    rng = np.random.default_rng(0)
    trials = [_tried(rng, groups, loss) for _ in range(120)]
    by_bound = np.mean([choose_alpha(tried, _no_error, floor) == 1.0 for tried in trials])
    assert by_bound <= 0.05
    # The control: by the estimate, it is taken up to every third time.
    by_estimate = np.mean([tried[1].general >= tried[0].general - floor for tried in trials])  # type: ignore[operator]
    assert by_estimate > max(0.15, 3 * by_bound)


def test_a_model_that_loses_nothing_is_chosen() -> None:
    rng = np.random.default_rng(0)
    assert all(choose_alpha(_tried(rng, 300, 0.0), _no_error, 0.01) == 1.0 for _ in range(10))
