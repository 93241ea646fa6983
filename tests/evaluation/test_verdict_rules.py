"""The rule of each verdict and warning by hand, on rows that are written down."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from domainclip.evaluation.base import ProbeResult
from domainclip.evaluation.metrics.results import metric
from domainclip.evaluation.row_warnings import control_warnings, interval_warnings, margin_warnings
from domainclip.evaluation.statistics import aggregates, estimates
from domainclip.evaluation.statistics.changes import Change
from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import (
    BETTER,
    KEPT,
    NO_VERDICT,
    SAME,
    UNKNOWN,
    WORSE,
    ComparisonRow,
    add_verdicts,
    add_verdicts_together,
    are_comparable,
    compare_metric,
    underpowered_families,
)
from tests.evaluation.probes.array_encoder import evaluation_set
from tests.report.made_results import change as made_change

NAN = float("nan")
HALF = Estimate(0.5, 0.4, 0.6)


def row(metric: str = "accuracy", p: float = 0.01, value: float = 0.1, **changes: Any) -> ComparisonRow:
    """A difference whose interval excludes 0, with this p."""
    facts: dict[str, Any] = {
        **{"probe": "zero_shot", "dataset": "test", "metric": metric, "higher_is_better": True},
        **{"unit": "share", "chance": None, "primary": False, "n": 40, "groups": 40, "undefined": 0.0},
        **{"base": HALF, "adapted": HALF, "ids": [], "owners": []},
        **{"base_scores": np.zeros(0), "adapted_scores": None},
        "difference": Estimate(value, value - 0.05, value + 0.05, p),
        "change": made_change(value, p),
    }
    return ComparisonRow(**{**facts, **changes})


def verdicts(rows: list[ComparisonRow]) -> list[str | None]:
    return [each.verdict for each in add_verdicts(rows)]


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, BETTER),
        ({"value": -0.1}, WORSE),
        ({"higher_is_better": False}, WORSE),
        ({"value": -0.1, "higher_is_better": False}, BETTER),
        ({"p": 0.06}, SAME),
        ({"difference": Estimate(0.1, -0.1, 0.3, 0.01)}, SAME),
        ({"difference": Estimate(0.1, NAN, NAN, NAN)}, UNKNOWN),
        ({"comparable": False}, NO_VERDICT),
        ({"control_fault": "the control is above chance"}, NO_VERDICT),
        ({"difference": None}, None),
    ],
)
def test_the_verdict_of_a_single_metric(changes: dict[str, Any], verdict: str | None) -> None:
    assert verdicts([row(**changes)]) == [verdict]


def test_parts_of_a_metric_are_judged_together() -> None:
    """Bonferroni of 0.01, 0.015 and 0.02 over three: 0.03, 0.045 and 0.06."""
    parts = [row(f"accuracy/{name}", p) for name, p in (("a", 0.01), ("b", 0.015), ("c", 0.02))]
    assert verdicts(parts) == [BETTER, BETTER, SAME]
    assert [judged.adjusted_p for judged in add_verdicts(parts)] == pytest.approx([0.03, 0.045, 0.06])
    # The whole metric, another metric, probe and set are families of their own.
    others = [row("accuracy", 0.04), row("recall/d", 0.04), row("accuracy/d", 0.04, probe="knn")]
    others.append(row("accuracy/d", 0.04, dataset="general"))
    assert verdicts([*parts, *others]) == [BETTER, BETTER, SAME] + [BETTER] * 4


def test_a_part_alone_is_not_adjusted_and_p_of_exactly_5_per_cent_counts() -> None:
    assert verdicts([row("accuracy/a", 0.05)]) == [BETTER]
    assert verdicts([row("accuracy/a", 0.051)]) == [SAME]
    assert verdicts([row("accuracy/a", 0.0249), row("accuracy/b", 0.024)]) == [BETTER, BETTER]
    (alone,) = add_verdicts([row("accuracy/a", 0.05)])
    assert (alone.simultaneous, alone.adjusted_p, alone.shown) == (None, None, alone.difference)


def test_several_models_against_one_reference_are_a_family() -> None:
    first, second = add_verdicts_together([[row(p=0.03)], [row(p=0.02)]])
    assert [first[0].verdict, second[0].verdict] == [SAME, BETTER]  # 0.06 and 0.04
    first, second = add_verdicts_together([[row(p=0.02)], [row(p=0.02)]])
    assert [first[0].verdict, second[0].verdict] == [BETTER, BETTER]  # 0.04 and 0.04


def test_the_interval_of_a_part_is_that_of_its_family() -> None:
    """0.1 with p = 0.01 alone; of four, the interval of the level 1 - 0.05/4 ends at 0.1 ± 2.498 · error."""
    parts = add_verdicts([row(f"accuracy/{name}", 0.01) for name in "abcd"])
    error = 0.1 / norm.isf(0.005)
    for part in parts:
        assert part.simultaneous is not None
        assert part.shown is part.simultaneous
        assert part.simultaneous.p == part.adjusted_p == pytest.approx(0.04)
        reach = norm.isf(0.05 / 8) * error
        assert (part.simultaneous.low, part.simultaneous.high) == pytest.approx((0.1 - reach, 0.1 + reach))
        assert part.difference == Estimate(0.1, 0.05, 0.15000000000000002, 0.01)


def kept(
    value: float = 0.0, low: float = -0.015, margin: float | None = 0.02, **changes: Any
) -> ComparisonRow:
    """A row on the retention set with this difference and interval."""
    facts = {"dataset": "general", "difference": Estimate(value, low, 2 * value - low, 0.5), **changes}
    return add_verdicts([row(**facts)], margin)[0]


def test_kept_within_the_margin_is_what_the_bound_shows() -> None:
    assert (kept().verdict, kept().within_margin, kept().at_most_lost) == (KEPT, True, 0.015)
    assert (kept(low=-0.02).verdict, kept(low=-0.021).verdict) == (KEPT, SAME)
    assert kept(low=-0.021).within_margin is False
    assert (kept(margin=None).verdict, kept(margin=None).within_margin) == (SAME, None)
    assert kept(margin=None).at_most_lost == 0.015  # shown without a margin, too
    upside_down = kept(value=0.005, low=-0.05, higher_is_better=False)
    assert (upside_down.at_most_lost, upside_down.verdict) == (pytest.approx(0.06), SAME)


def test_the_margin_is_that_of_shares_on_the_retention_set() -> None:
    assert kept(dataset="test").verdict == kept(unit="rank").verdict == SAME
    assert kept(dataset="test").margin is None


def test_a_margin_that_so_few_groups_cannot_show() -> None:
    """t of 39 · √2 / 42 = 0.068 is the bound of a model that changes nothing."""
    assert margin_warnings([kept(margin=0.02), kept(margin=0.02, metric="recall")]) == [
        "retention.margin: a drop of at most 0.02 cannot be shown with 40 groups of the retention set: name a "
        "retention set of 138 groups or more, or allow a drop of 0.069"
    ]
    assert margin_warnings([kept(margin=0.07), kept(margin=None), kept(dataset="test")]) == []
    assert margin_warnings([kept(margin=0.02, metric="accuracy/a")]) == []


def test_a_significant_loss_is_worse_also_within_the_margin() -> None:
    lost = kept(difference=Estimate(-0.01, -0.015, -0.005, 0.01))
    assert (lost.verdict, lost.within_margin) == (WORSE, True)


def test_what_is_not_judged_is_not_shown_to_be_kept() -> None:
    for changes in ({"comparable": False}, {"control_fault": "the control is above chance"}):
        assert (kept(**changes).verdict, kept(**changes).margin) == (NO_VERDICT, None)
        assert kept(**changes).at_most_lost is None
    assert kept(difference=Estimate(0.1, NAN, NAN, NAN)).at_most_lost is None
    flat = kept(
        difference=Estimate(0.0, 0.0, 0.0, 1.0), unit="rank"
    )  # an interval without width bounds nothing
    assert flat.at_most_lost is None
    assert kept(difference=None).at_most_lost is None


def test_in_a_family_the_margin_is_tested_on_the_interval_of_the_family() -> None:
    """0 ± 1.96 · 0.009 is within 0.02 alone; of two, 0 ± 2.24 · 0.009 is not."""
    part = partial(row, dataset="general", change=Change(0.0, 0.0, 0.009**2, np.inf))
    difference = Estimate(0.0, -1.96 * 0.009, 1.96 * 0.009, 1.0)
    parts = [part("accuracy/a", difference=difference), part("accuracy/b", difference=difference)]
    assert [one.verdict for one in add_verdicts(parts[:1], 0.02)] == [KEPT]
    assert [one.verdict for one in add_verdicts(parts, 0.02)] == [SAME, SAME]


def result(*names: str, unit: str = "share") -> ProbeResult:
    items = evaluation_set([{"id": f"{i:02d}"} for i in range(12)]).items
    scores = np.linspace(0.1, 0.9, 12)
    metrics = [metric(name, items, np.arange(12), scores, chance=0.25, unit=unit) for name in names]
    return ProbeResult("made", "test", metrics, "first", 1)


def test_the_row_of_a_metric_of_one_model() -> None:
    found = compare_metric([result("first", "second")], "second", 100, 0)
    assert (found.probe, found.dataset, found.metric, found.n, found.groups) == (
        "made",
        "test",
        "second",
        12,
        12,
    )
    assert (found.primary, found.chance, found.adapted, found.difference) == (False, 0.25, None, None)
    assert compare_metric([result("first")], "first", 100, 0).primary
    assert are_comparable([result("first", "second")]) == (["first", "second"], [])


@pytest.mark.parametrize(
    ("one_tower", "change", "comparable"), [(True, 0.0, False), (True, 0.5, True), (False, 0.0, True)]
)
def test_what_is_equal_by_construction_is_not_judged(
    one_tower: bool, change: float, comparable: bool
) -> None:
    """A metric of images alone, of models that share the image tower."""
    data = evaluation_set([{"id": f"{i:02d}"} for i in range(12)])
    pair = []
    for first in (0.0, change):
        scores = np.array([first, *[np.nan], *[0.5] * 10])
        of_images = metric("map", data.items, np.arange(12), scores, aggregates.mean)
        pair.append(ProbeResult("knn", "test", [replace(of_images, one_tower=one_tower)], "map", 1))
    assert compare_metric(pair, "map", 50, 0).comparable is comparable


def test_the_interval_of_a_rank_is_not_that_of_a_share() -> None:
    share, rank = (
        compare_metric([result("first", unit=unit)], "first", 100, 0) for unit in ("share", "rank")
    )
    scores, names = np.linspace(0.1, 0.9, 12), [f"{i:02d}" for i in range(12)]
    for found, is_share in ((share, True), (rank, False)):
        expected = estimates.compare_paired(aggregates.mean, scores, None, names, 100, 0, is_share).base
        assert found.base == expected
    assert share.base != rank.base


def test_five_metrics_that_are_left_out_are_all_named() -> None:
    names = [f"m{i}" for i in range(6)]
    assert are_comparable([result("first", *names[:5]), result("first")])[1] == [
        "left out, since not every model has it: m0, m1, m2, m3, m4"
    ]
    assert are_comparable([result("first", *names), result("first")])[1] == [
        "left out, since not every model has it: m0, m1, m2, m3, m4 and 1 more"
    ]


def test_a_whole_metric_and_its_part() -> None:
    assert (row("accuracy/cat/old").whole, row("accuracy/cat/old").part) == ("accuracy", "cat/old")
    assert (row("accuracy").whole, row("accuracy").part) == ("accuracy", "")


def test_families_without_power() -> None:
    """Three parts whose p cannot be below 0.02 cannot reach 0.05 together; two can, and so can one."""
    parts = [row(f"accuracy/{name}", 0.5, least_p=0.02) for name in "abc"]
    assert underpowered_families([parts], 400) == [
        "zero_shot on test: accuracy: 3 differences are compared together, of which none can be shown: 40 groups "
        "and 400 resamples give no p below 0.02: raise evaluate.bootstrap_samples, or measure more groups"
    ]
    assert underpowered_families([parts[:2]], 400) == []
    assert (
        underpowered_families([[row(f"accuracy/{name}") for name in "abc"]], 400) == []
    )  # any p is possible
    assert underpowered_families([[row("accuracy/a", 0.5, least_p=0.06)]], 400) == []
    assert underpowered_families([[*parts[:2], row("accuracy/d", 0.5, least_p=0.001)]], 400) == []
    not_judged = [
        row("accuracy/d", 0.5, least_p=0.02, comparable=False),
        row("accuracy/e", NAN, least_p=0.02),
    ]
    assert underpowered_families([[*parts[:2], *not_judged]], 400) == []
    exactly = [row(f"accuracy/{name}", 0.5, least_p=0.025) for name in "ab"]
    assert underpowered_families([exactly], 400) == []  # 2 · 0.025 reaches 0.05
    assert len(underpowered_families([[row(p=0.5, least_p=0.03)], [row(p=0.5, least_p=0.03)]], 400)) == 1


@pytest.mark.parametrize(
    ("groups", "warning"),
    [
        (5, ["test: only 5 groups: no interval can be given below 6"]),
        (6, ["test: only 6 groups: intervals are narrower than they should be"]),
        (19, ["test: only 19 groups: intervals are narrower than they should be"]),
        (20, []),
    ],
)
def test_warnings_about_few_groups(groups: int, warning: list[str]) -> None:
    assert interval_warnings([row(groups=groups)], groups) == warning
    assert interval_warnings([row("accuracy/a", groups=groups)], groups) == []  # its whole has it


def test_a_metric_of_fewer_groups_than_the_set_names_its_probe() -> None:
    assert interval_warnings([row("accuracy/a", groups=3), row(groups=8)], 40) == [
        "zero_shot on test: only 8 groups: intervals are narrower than they should be"
    ]
    # Of a probe with metrics on other groups, the metric is named too.
    assert interval_warnings([row(groups=30), row("map", groups=8)], 40) == [
        "zero_shot map on test: only 8 groups: intervals are narrower than they should be"
    ]


def test_warnings_about_undefined_resamples() -> None:
    assert interval_warnings([row(undefined=0.05)], 40) == []
    assert interval_warnings([row(undefined=0.0501)], 40) == [
        "test: accuracy is undefined in 5% of the resamples: read its interval with care"
    ]


def test_a_failed_control_is_named_once() -> None:
    rows = [
        row(control_fault="the control is above chance"),
        row("recall", control_fault="the control is above chance"),
    ]
    assert control_warnings([*rows, row()]) == [
        "zero_shot on test: not judged, since the control is above chance"
    ]
