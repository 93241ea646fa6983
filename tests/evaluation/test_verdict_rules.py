"""The rule of each verdict and warning by hand, on rows that are written down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from domainclip.evaluation.base import ProbeResult
from domainclip.evaluation.metrics.results import metric
from domainclip.evaluation.statistics import aggregates, estimates
from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import (
    BETTER,
    NO_VERDICT,
    SAME,
    UNKNOWN,
    WORSE,
    ComparisonRow,
    add_verdicts,
    add_verdicts_together,
    are_comparable,
    compare_metric,
    control_warnings,
    interval_warnings,
    underpowered_families,
)
from tests.evaluation.probes.array_encoder import evaluation_set

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
    """Holm of 0.01, 0.02 and 0.03 over three: 0.03, 0.04 and 0.04; over four with 0.04: 0.04, 0.06, 0.06, 0.06."""
    parts = [row(f"accuracy/{name}", p) for name, p in (("a", 0.01), ("b", 0.02), ("c", 0.03))]
    assert verdicts(parts) == [BETTER, BETTER, BETTER]
    assert verdicts([*parts, row("accuracy/d", 0.04)]) == [BETTER, SAME, SAME, SAME]
    # The whole metric, another metric, probe and set are families of their own.
    others = [row("accuracy", 0.04), row("recall/d", 0.04), row("accuracy/d", 0.04, probe="knn")]
    others.append(row("accuracy/d", 0.04, dataset="general"))
    assert verdicts([*parts, *others]) == [BETTER] * 3 + [BETTER] * 4


def test_a_part_alone_is_adjusted_as_one_and_p_of_exactly_5_per_cent_counts() -> None:
    assert verdicts([row("accuracy/a", 0.05)]) == [BETTER]
    assert verdicts([row("accuracy/a", 0.051)]) == [SAME]
    assert verdicts([row("accuracy/a", 0.025), row("accuracy/b", 0.025)]) == [BETTER, BETTER]


def test_several_models_against_one_reference_are_a_family() -> None:
    first, second = add_verdicts_together([[row(p=0.03)], [row(p=0.02)]])
    assert [first[0].verdict, second[0].verdict] == [BETTER, BETTER]  # 0.04 and 0.04
    first, second = add_verdicts_together([[row(p=0.03)], [row(p=0.03)]])
    assert [first[0].verdict, second[0].verdict] == [SAME, SAME]  # 0.06 and 0.06


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
