"""Differences over seeds: worked by hand, and how often their intervals hold the truth."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.stats import t

from domainclip.evaluation.statistics import aggregates, bootstrap
from domainclip.evaluation.statistics.aggregates import auroc, mean, mean_of_columns
from domainclip.evaluation.statistics.estimates import compare_paired, estimate_of
from domainclip.evaluation.statistics.seeds import over_seeds as shares_over_seeds

# Of metrics without limits: shares have one added group of each sign, as `mean_change` has.
over_seeds = partial(shares_over_seeds, share=False)
TEN = [f"g{i}" for i in range(10)]


def flat(value: float) -> np.ndarray:
    return np.full(10, value)


def test_items_that_all_agree_leave_students_interval_over_the_seeds() -> None:
    """0.6, 0.7, 0.8 less 0.5: mean 0.2, s 0.1, t of 2 degrees 4.302653; p = 1 − t/√(t² + 2), t = 0.2 √3/0.1."""
    found = over_seeds(mean, flat(0.5), {"a": {0: flat(0.6), 1: flat(0.7), 7: flat(0.8)}}, TEN, 200, 0)["a"]
    reach = 4.302653 * 0.1 / 3**0.5
    assert found.mean == pytest.approx(0.7)
    assert found.values == pytest.approx({0: 0.6, 1: 0.7, 7: 0.8})
    assert found.from_base.value == pytest.approx(0.2)
    assert (found.from_base.low, found.from_base.high) == pytest.approx((0.2 - reach, 0.2 + reach))
    t = 0.2 * 3**0.5 / 0.1
    assert found.from_base.p == pytest.approx(1 - t / (t**2 + 2) ** 0.5)
    assert found.from_reference is None


def test_seeds_that_all_agree_leave_students_interval_over_the_items() -> None:
    """Differences 0.1 and 0.3 in turn: mean 0.2, s² = 10·0.01/9, so s/√10 = 1/30, t of 9 degrees 2.262157."""
    scores = flat(0.5) + np.tile([0.1, 0.3], 5)
    found = over_seeds(mean, flat(0.5), {"a": {0: scores, 1: scores}}, TEN, 40_000, 0)["a"].from_base
    assert found.high - found.value == pytest.approx(2.262157 / 30, rel=0.01)
    assert found.value - found.low == pytest.approx(found.high - found.value)
    assert found.p == 2.0**-9  # what ten groups that all moved can show at most


def test_the_two_variances_add_up() -> None:
    """Items: (1/30)². Seeds: 0.1²/3. Degrees of freedom by Satterthwaite: 3.47."""
    rows = np.tile([-0.1, 0.1], 5)
    seeds = {number: flat(0.5) + rows + step for number, step in enumerate((0.1, 0.2, 0.3))}
    found = over_seeds(mean, flat(0.5), {"a": seeds}, TEN, 40_000, 0)["a"].from_base
    items, between = 1 / 900, 0.01 / 3
    df = (items + between) ** 2 / (items**2 / 9 + between**2 / 2)
    assert df == pytest.approx(3.47, abs=0.01)
    assert found.high - found.value == pytest.approx(t.ppf(0.975, df) * (items + between) ** 0.5, rel=0.01)


def test_the_spread_between_seeds_is_pooled_over_the_variants() -> None:
    variants = {"a": {0: flat(0.6), 1: flat(0.7), 2: flat(0.8)}, "b": {0: flat(0.65)}}
    found = over_seeds(mean, flat(0.5), variants, TEN, 100, 0)
    one = found["b"].from_base  # a single seed: its spread is that of the others
    assert one.high - one.value == pytest.approx(4.302653 * 0.1)
    alone = over_seeds(mean, flat(0.5), {"b": variants["b"]}, TEN, 100, 0)["b"].from_base
    assert (alone.low, alone.high) == (pytest.approx(0.15), pytest.approx(0.15))


def test_the_reference_is_paired_seed_by_seed() -> None:
    variants = {
        "reference": {0: flat(0.6), 1: flat(0.7), 2: flat(0.8)},
        "a": {2: flat(0.81), 0: flat(0.61), 5: flat(0.1)},
        "other seeds": {9: flat(0.5)},
    }
    found = over_seeds(mean, flat(0.5), variants, TEN, 100, 0, "reference")
    change = found["a"].from_reference
    assert change is not None
    assert (change.value, change.low, change.high) == pytest.approx((0.01, 0.01, 0.01))
    assert change.p == 2.0**-9
    assert found["reference"].from_reference is None
    assert found["other seeds"].from_reference is None
    assert found["other seeds"].from_base.value == 0.0


def test_each_seed_is_a_model_and_not_a_voice_in_a_choir() -> None:
    """AUROC 1 and 0 are 0.5 in the mean; the mean of the scores, which nobody trained, would have 1."""
    labels = np.tile([0.0, 1.0], 5)
    seeds = {0: 3 * labels, 1: -labels}
    found = over_seeds(partial(auroc, labels=labels), np.zeros(10), {"a": seeds}, TEN, 100, 0)["a"]
    assert found.values == {0: 1.0, 1: 0.0}
    assert found.mean == 0.5


def test_equal_models_differ_in_nothing() -> None:
    base = np.arange(10) / 10
    found = over_seeds(mean, base, {"a": {0: base, 1: base.copy()}}, TEN, 100, 0)["a"].from_base
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_too_few_groups_give_no_interval() -> None:
    found = over_seeds(mean, np.zeros(10), {"a": {0: np.ones(10)}}, ["p", "q"] * 5, 100, 0)["a"].from_base
    assert found.value == 1
    assert found.p is not None
    assert np.isnan([found.low, found.high, found.p]).all()


def test_intervals_hold_the_truth_where_items_and_seeds_both_vary() -> None:
    """True difference 0.1; items in pairs that agree, three seeds, two variants. Items alone hold it far less."""
    draw = np.random.default_rng(0)
    groups = [f"g{i // 2}" for i in range(60)]
    held = narrow = 0
    rounds = 300
    for _ in range(rounds):
        base = np.repeat(draw.normal(0, 1, 30), 2)
        variants = {}
        for name in ("a", "b"):
            change = 0.1 + np.repeat(draw.normal(0, 0.2, 30), 2)
            variants[name] = {
                seed: base + change + draw.normal(0, 0.06) + draw.normal(0, 0.1, 60) for seed in range(3)
            }
        found = over_seeds(mean, base, variants, groups, 200, 0)["a"].from_base
        held += found.low <= 0.1 <= found.high
        alone = over_seeds(mean, base, {"a": {0: variants["a"][0]}}, groups, 200, 0)["a"].from_base
        narrow += alone.low <= 0.1 <= alone.high
    assert held / rounds >= 0.92
    assert narrow / rounds < 0.9


def test_one_heavy_group_costs_degrees_of_freedom() -> None:
    """One seed: df of the jackknife differences, 10 here and not 24; no variance between seeds is known."""
    groups = [f"g{i:02d}" for i in range(25)]
    base = np.linspace(0, 1, 25)
    scores = base + np.where(np.arange(25) == 3, 0.9, 0.01)
    found = over_seeds(mean, base, {"a": {4: scores}}, groups, 300, 0)["a"].from_base
    drawn_base, drawn = bootstrap.resampled(mean, [base, scores], groups, 300, 0)
    spread = float(np.var(drawn - drawn_base)) * 11 / 10
    assert found.value == pytest.approx((0.9 + 24 * 0.01) / 25)
    reach = 2.228139 * spread**0.5  # Student's t of 10 degrees
    assert (found.low, found.high) == pytest.approx((found.value - reach, found.value + reach))


@pytest.mark.parametrize(("groups", "defined"), [(5, False), (6, True)])
def test_six_groups_are_the_fewest_with_an_interval(groups: int, defined: bool) -> None:
    names = [f"g{i}" for i in range(groups)]
    found = over_seeds(mean, np.zeros(groups), {"a": {0: np.ones(groups)}}, names, 100, 0)["a"].from_base
    assert found.value == 1.0
    # All six moved by the same amount: p = 2·2⁻⁶, not 1 and not 0.
    expected = (1.0, 1.0, 0.03125) if defined else (np.nan, np.nan, np.nan)
    assert (found.low, found.high, found.p) == pytest.approx(expected, nan_ok=True)


def test_only_groups_in_which_a_column_moved_count() -> None:
    """Twelve items of two columns, the second not measured for half of them: six move, in the first alone."""
    base = np.full((12, 2), 0.5)
    base[::2, 1] = np.nan
    scores = base.copy()
    scores[:6, 0] = 0.9
    names = [f"g{i:02d}" for i in range(12)]
    found = over_seeds(mean_of_columns, base, {"a": {0: scores, 1: scores}}, names, 400, 0)["a"].from_base
    assert found.value == pytest.approx(0.1)
    assert found.p == 2.0**-5


def test_resamples_in_which_a_metric_is_undefined_are_left_out() -> None:
    labels = np.array([1.0] + [0.0] * 9)  # undefined in a third of the resamples
    rng = np.random.default_rng(0)
    base, scores = rng.random((2, 10))

    def share_of_first(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return aggregates.ratio_of(weights @ (labels * scores), weights @ labels)

    found = over_seeds(share_of_first, base, {"a": {0: scores}}, TEN, 200, 0)["a"].from_base
    assert np.isfinite([found.value, found.low, found.high]).all()


def test_one_seed_of_shares_is_judged_as_two_models_are() -> None:
    """An ablation and an evaluation agree for the same model and items."""
    rng = np.random.default_rng(0)
    names = [f"g{i:03d}" for i in range(60)]
    base, scores = (rng.random((2, 60)) < [[0.5], [0.7]]).astype(float)
    labels = rng.integers(0, 2, 60).astype(float)
    for metric, (one, other) in (
        (mean, (base, scores)),
        (partial(auroc, labels=labels), tuple(rng.normal(size=(2, 60)))),
    ):
        found = shares_over_seeds(metric, one, {"a": {3: other}}, names, 200, 0)["a"].from_base
        assert found == compare_paired(metric, one, other, names, 200, 0).difference


def test_an_auroc_of_nine_positives_has_no_interval_in_an_ablation() -> None:
    labels = (np.arange(40) < 9).astype(float)
    base, scores = np.random.default_rng(0).normal(size=(2, 40))
    names = [f"g{i}" for i in range(40)]
    found = shares_over_seeds(partial(auroc, labels=labels), base, {"a": {0: scores}}, names, 200, 0)["a"]
    assert np.isnan([found.from_base.low, found.from_base.high, found.from_base.p]).all()


def test_differences_of_a_table_are_corrected_for_their_number() -> None:
    scores = flat(0.5) + np.tile([0.1, 0.3], 5)
    found = over_seeds(mean, flat(0.5), {"a": {0: scores}, "b": {0: scores}}, TEN, 100, 0, "b")["a"]
    together = replace(found, comparisons=(8, 1))
    assert together.from_base == estimate_of(found.base_change, 8)
    assert together.from_base.p == 8 * 2.0**-9
    assert together.from_base.low < found.from_base.low < found.from_base.high < together.from_base.high
    assert together.from_reference == found.from_reference
    assert replace(found, comparisons=(1, 8)).from_base == found.from_base


def test_six_groups_of_unequal_weight() -> None:
    """One of six moves more than the others: 3.75 degrees of freedom, not 5."""
    names, scores = [f"g{i}" for i in range(6)], np.array([0.9, 0.1, 0.1, 0.1, 0.1, 0.1])
    found = over_seeds(mean, np.zeros(6), {"a": {0: scores}}, names, 100, 0)["a"].from_base
    (drawn,) = bootstrap.resampled(mean, [scores], names, 100, 0)
    reach = t.ppf(0.975, 3.75) * (float(np.var(drawn)) * 4.75 / 3.75) ** 0.5
    assert (found.low, found.high) == pytest.approx((found.value - reach, found.value + reach))


def test_a_biased_metric_has_no_interval_over_seeds() -> None:
    found = over_seeds(mean, flat(0.5), {"a": {0: flat(0.6)}}, TEN, 100, 0, biased=True)["a"].from_base
    assert found.value == pytest.approx(0.1)
    assert np.isnan([found.low, found.high, found.p]).all()
