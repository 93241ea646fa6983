"""Do the intervals hold what they promise? The small twin of benchmarks/coverage.py."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm, t

from benchmarks import coverage
from domainclip.evaluation.statistics import aggregates, bootstrap, controls, estimates, paired_shares
from domainclip.evaluation.statistics.aggregates import mean_of_columns
from domainclip.evaluation.statistics.changes import Change
from tests.evaluation.statistics.weights import bootstrap_weights

NAN = float("nan")


def names(n: int) -> list[str]:
    return [f"p{i:03d}" for i in range(n)]


@pytest.mark.parametrize("figure", ["mean", "accuracy", "AUROC", "difference"])
def test_intervals_by_patient_cover_95_per_cent(figure: str) -> None:
    """Fault 40. 300 trials: a true 95 % lies within 0.92 and 0.98 (2.4 standard errors).

    A difference has an added group of each sign, so that few patients with few changes are held more often.
    """
    groups = 40 if figure == "AUROC" else 20  # of which ten are ill, at least
    held = coverage.coverage(figure, groups=groups, sizes="5", icc=0.5, trials=300, resamples=300)
    assert 0.92 <= held["ours"] <= (0.99 if figure == "difference" else 0.98)
    assert held["by image"] < held["ours"] - 0.03  # the negative control: images are not patients


def test_too_narrow_percentiles_are_seen_by_the_same_simulation() -> None:
    held = coverage.coverage("accuracy", groups=20, sizes="1-20", icc=0.5, trials=300, resamples=300)
    assert held["percentile"] < 0.92 <= held["ours"]


def test_models_of_equal_skill_are_called_different_in_at_most_5_per_cent() -> None:
    claims = [
        coverage.false_claims(groups, sizes, 0.5, trials=200, resamples=300)
        for groups, sizes in ((20, "5"), (20, "1"), (50, "1-20"))
    ]
    assert np.mean(claims) <= 0.05
    assert max(claims) <= 0.09  # 200 trials at 5 %: 2.6 standard errors


def test_swapped_models_are_seldom_claimed_to_differ_and_real_ones_are() -> None:
    rng = np.random.default_rng(2)
    base = (rng.random(120) < 0.5).astype(float)
    better = np.maximum(base, (rng.random(120) < 0.5).astype(float))
    groups = [f"p{i // 2:02d}" for i in range(120)]
    found = estimates.compare_paired(aggregates.mean, base, better, groups, 400, 0).difference
    assert found is not None
    assert found.sign == 1
    assert (
        controls.false_positive_rate(aggregates.mean, base, better, groups, swaps=150, resamples=300) <= 0.08
    )
    labels = rng.integers(0, 2, 120).astype(float)
    areas = partial(aggregates.auroc, labels=labels)
    one, other = rng.normal(size=(2, 120)) + labels
    assert controls.false_positive_rate(areas, one, other, groups, swaps=60, resamples=200) <= 0.12


def test_a_broken_procedure_fails_the_control(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: with intervals half as wide the swaps are claimed far too often."""
    from domainclip.evaluation.statistics import spreads

    plain = paired_shares.mean_change

    def narrow(*given: Any) -> Change:
        change = plain(*given)
        return replace(change, variance=change.variance / 4)

    monkeypatch.setattr(spreads, "mean_change", narrow)
    rng = np.random.default_rng(2)
    base, other = rng.random((2, 60))
    assert (
        controls.false_positive_rate(aggregates.mean, base, other, names(60), swaps=60, resamples=200) > 0.2
    )


def test_a_model_against_itself_claims_nothing() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40).astype(float)
    for aggregate, scores in (
        (aggregates.mean, rng.random(40)),
        (aggregates.median, rng.random(40)),
        (partial(aggregates.auroc, labels=labels), rng.random(40)),
    ):
        control = estimates.compare_paired(aggregate, scores, scores.copy(), names(40), 200, seed=0)
        assert control.difference is not None
        assert (control.difference.value, control.difference.p, control.difference.sign) == (0.0, 1.0, 0)


def test_blocks_of_any_size_draw_the_same() -> None:
    groups = [f"p{i // 3:02d}" for i in range(50)]
    plain = bootstrap_weights(groups, 40, seed=3)
    for cells in (1, 120, 777, 10**6):
        blocks = list(bootstrap.weight_blocks(groups, 40, 3, cells))
        assert max(len(block) for block in blocks) <= max(1, cells // 50)
        assert (np.concatenate(blocks) == plain).all()


def test_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spying(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        seen.append(weights.size)
        return aggregates.mean(scores, weights)

    estimates.compare_paired(
        spying, np.random.default_rng(0).random(30_000), None, [f"{i}" for i in range(30_000)], 200, 0
    )
    assert max(seen) <= 2_000_000  # 200 × 30 000 would be three times that
    assert sum(seen) >= 200 * 30_000


def test_percentiles_move_outwards_as_hesterberg_says() -> None:
    values = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    low, high = bootstrap.interval(values, df=9)
    reach = t.ppf(0.975, 9) * np.sqrt(10 / 9)
    assert (low, high) == pytest.approx((-reach, reach), abs=2e-3)
    assert bootstrap.interval(values) == pytest.approx((-1.96, 1.96), abs=1e-3)
    p = bootstrap.p_value(values + reach, df=9)
    assert p == pytest.approx(0.05, abs=2e-3)  # zero at the edge of the interval


def test_freedom() -> None:
    alike = np.random.default_rng(0).normal(size=400)
    assert bootstrap.degrees_of_freedom(alike, 400) > 300
    one_large = np.r_[np.zeros(50), 5.0]
    assert (
        bootstrap.degrees_of_freedom(one_large, 51) == 10.0
    )  # one patient decides everything: no less is believed
    assert bootstrap.degrees_of_freedom(np.full(12, 0.3), 12) == 11
    assert bootstrap.degrees_of_freedom(np.array([np.nan, 1.0, -1.0, 1.0, -1.0]), 5) <= 4


def test_intervals_of_shares_stay_inside_and_hold_the_value() -> None:
    scores = np.r_[np.zeros(1), np.ones(29)]
    found = estimates.compare_paired(aggregates.mean, scores, None, names(30), 400, 0).base
    assert 0 < found.low < found.value < found.high < 1
    low, high = bootstrap.interval(bootstrap.resampled(aggregates.mean, [scores], names(30), 400, 0)[0])
    assert high == 1.0
    assert found.low < low


def test_independent_right_answers_are_judged_by_mcnemar() -> None:
    base, adapted = np.zeros(100), np.zeros(100)
    adapted[:5] = 1  # five gained, none lost: exact p is 0.0625, the plain bootstrap's about 0.01
    found = estimates.compare_paired(aggregates.mean, base, adapted, names(100), 2000, 0).difference
    assert found is not None
    assert found.p == 0.0625
    assert found.low <= 0 < found.high
    adapted[5] = 1
    found = estimates.compare_paired(aggregates.mean, base, adapted, names(100), 2000, 0).difference
    assert found is not None
    assert found.p == pytest.approx(0.03297, abs=1e-5)  # of the interval; McNemar's is 0.03125
    assert found.low > 0


def test_five_changed_patients_prove_nothing_whatever_the_figure() -> None:
    groups = [f"p{i // 2:02d}" for i in range(200)]
    base, adapted = np.zeros(200), np.zeros(200)
    adapted[:10] = 0.7
    found = estimates.compare_paired(aggregates.mean, base, adapted, groups, 2000, 0).difference
    assert found is not None
    assert found.p is not None
    assert found.p > 2 / 2**5
    assert found.low < 0
    assert found.sign == 0
    ranks = estimates.compare_paired(aggregates.mean, base, adapted, groups, 2000, 0, share=False).difference
    assert ranks is not None
    assert ranks.p == 2 / 2**5
    assert ranks.low == 0.0  # the interval of the resamples alone would have claimed it
    assert ranks.sign == 0


def test_items_change_in_the_columns_they_have() -> None:
    """Each item has one of two columns, as one that is told in one of two languages."""
    own = np.arange(200) % 2
    base, adapted = np.full((2, 200, 2), NAN)
    base[np.arange(200), own], adapted[np.arange(200), own] = 0.05, 0.95
    found = estimates.compare_paired(mean_of_columns, base, adapted, names(200), 2000, 0).difference
    assert found is not None
    assert found.value == pytest.approx(0.9)
    assert found.p is not None
    assert found.p < 0.002
    assert found.sign == 1


def test_what_only_one_model_has_is_a_change() -> None:
    base, adapted = np.zeros((2, 40, 1))
    base[:10], adapted[:10] = NAN, 1.0
    found = estimates.compare_paired(mean_of_columns, base, adapted, names(40), 2000, 0).difference
    assert found is not None
    assert found.sign == 1
    base[5:10] = adapted[5:10]  # five are left, which prove nothing
    adapted[10:20] = base[10:20] = NAN
    found = estimates.compare_paired(mean_of_columns, base, adapted, names(40), 2000, 0).difference
    assert found is not None
    assert found.p == 2 / 2**5
