from __future__ import annotations

import math

import numpy as np
import pytest

from domainclip.evaluation.base import Metric, ProbeResult
from domainclip.evaluation.biased_metrics import NO_INTERVAL, described
from domainclip.evaluation.probes.shortcut_mark import _highest_at_chance
from domainclip.evaluation.statistics import aggregates
from domainclip.evaluation.verdicts import NO_VERDICT, add_verdicts, compare_metric


@pytest.mark.parametrize("biased", [True, False])
def test_a_biased_metric_has_values_and_luck_but_no_interval(biased: bool) -> None:
    results = [
        ProbeResult(
            "calibration",
            "test",
            [
                Metric(
                    "ece",
                    [f"i{i}" for i in range(30)],
                    [f"g{i}" for i in range(30)],
                    np.linspace(0, high, 30),
                    aggregates.mean,
                    comparable=not biased,
                    biased=biased,
                    by_luck=luck if biased else None,
                )
            ],
            "ece",
            1,
        )
        for high, luck in ((0.5, 0.1), (0.2, 0.12))
    ]
    compared = compare_metric(results, "ece", 200, 0)
    assert math.isfinite(compared.base.low)
    row = described(compared, results)
    if not biased:
        assert row is compared
        return
    assert row.base.value == pytest.approx(0.25)
    assert row.adapted is not None
    assert math.isnan(row.adapted.low)
    assert row.difference is not None
    assert math.isnan(row.difference.low)
    assert row.difference.p is None
    assert (row.by_luck, row.too_few) == ((0.1, 0.12), NO_INTERVAL)
    assert add_verdicts([row])[0].verdict == NO_VERDICT


def test_the_attack_success_by_luck_is_the_highest_share_of_changes_without_a_target() -> None:
    truth = np.repeat([0, 1], 40)
    flips = np.zeros((80, 2))
    flips[:20, 1] = 1.0  # half of the items of class 0 change, to the only other class
    flips[np.arange(80), truth] = np.nan
    assert _highest_at_chance(flips, truth) == 0.5  # with two classes there is no other target
    many = np.zeros((80, 9))
    many[np.arange(0, 80, 4), 8] = 1.0  # a quarter changes, all to one class
    many[np.arange(80), truth] = np.nan
    luck = _highest_at_chance(many, truth)
    assert 0.25 / 8 < luck < 0.1  # the highest of eight shares of three per cent, by simulation


def test_no_change_has_no_luck() -> None:
    flips = np.zeros((20, 3))
    assert _highest_at_chance(flips, np.zeros(20, dtype=int)) == 0
