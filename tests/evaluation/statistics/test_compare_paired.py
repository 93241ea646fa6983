"""Which interval and which p a comparison gets: by hand, at the borders between the methods."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.stats import t

from domainclip.evaluation.statistics import aggregates, bootstrap, closed_form, controls, sign_flips
from domainclip.evaluation.statistics.changes import Change
from domainclip.evaluation.statistics.estimates import Estimate, PairedComparison, compare_paired
from domainclip.evaluation.statistics.paired_shares import MeanWeights, mean_change

NAN = float("nan")
RAMP = np.arange(1.0, 13) / 13


def names(n: int) -> list[str]:
    return [f"p{i:03d}" for i in range(n)]


def compared(base: np.ndarray, adapted: np.ndarray, groups: list[str], **options: object) -> PairedComparison:
    return compare_paired(aggregates.mean, base, adapted, groups, 200, 0, **options)  # type: ignore[arg-type]


def change_of(found: PairedComparison) -> Estimate:
    assert found.difference is not None
    return found.difference


@pytest.mark.parametrize(
    ("low", "high", "p", "sign"),
    [
        (0.1, 0.2, 0.05, 1),  # p of exactly 0.05 is significant
        (0.1, 0.2, 0.051, 0),
        (-0.2, -0.1, 0.01, -1),
        (-0.1, 0.1, 0.01, 0),
        (0.0, 0.1, 0.01, 0),  # an interval that touches zero
        (-0.1, 0.0, 0.01, 0),
        (0.1, 0.2, None, 1),
        (NAN, NAN, NAN, 0),
    ],
)
def test_sign(low: float, high: float, p: float | None, sign: int) -> None:
    assert Estimate(0.0, low, high, p).sign == sign


def test_without_an_adapted_model_there_is_no_difference() -> None:
    found = compare_paired(aggregates.mean, RAMP, None, names(12), 200, 0)
    assert (found.adapted, found.difference, found.groups) == (None, None, 12)
    assert (found.undefined, found.least_p, found.change) == (0.0, 0.0, None)


def test_a_share_has_the_interval_of_the_logit_and_a_rank_that_of_percentiles() -> None:
    groups = names(12)
    (drawn,) = bootstrap.resampled(aggregates.mean, [RAMP], groups, 200, 0)
    (without,) = bootstrap.jackknife(aggregates.mean, [RAMP], groups)
    df = bootstrap.degrees_of_freedom(without, 12)
    share = compare_paired(aggregates.mean, RAMP, None, groups, 200, 0)
    assert (share.base.low, share.base.high) == bootstrap.share_interval(drawn, float(RAMP.mean()), df)
    rank = compare_paired(aggregates.mean, RAMP, None, groups, 200, 0, share=False)
    assert (rank.base.low, rank.base.high) == bootstrap.interval(drawn, df=df)


def test_a_difference_of_means_has_one_added_group_of_each_sign() -> None:
    """By hand, of twelve groups: 3 gained, 1 lost. Bonett and Price: (4 − 2) / 14 for the two added groups."""
    base, adapted = np.zeros(12), np.zeros(12)
    adapted[:3], base[3] = 1.0, 1.0
    change = change_of(compared(base, adapted, names(12)))
    centre = (3 - 1) / 14
    # Σ (d − d̄)² = 4 − 12 · (2/12)², times 12 / 11 for the mean that is estimated, and 2 of the added groups.
    variance = ((4 - 4 / 12) * 12 / 11 + 2) / 14**2
    reach = t.ppf(0.975, 11) * np.sqrt(variance)
    assert (change.low, change.high) == pytest.approx((centre - reach, centre + reach), abs=1e-12)
    # Without an independent item for each group, p is that of the same interval.
    thirds = change_of(compared(np.repeat(base, 2), np.repeat(adapted, 2), [f"p{i // 2}" for i in range(24)]))
    assert (thirds.low, thirds.high) == pytest.approx((centre - reach, centre + reach), abs=1e-12)
    assert thirds.p == pytest.approx(2 * t.sf(centre / np.sqrt(variance), 11))


def test_a_difference_of_ranks_has_students_interval_from_the_resamples() -> None:
    base = np.tile([2.0, 4.0, 9.0], 4)
    found = compared(base, base[::-1] / 2 + 3, names(12), share=False)
    drawn = np.subtract(*bootstrap.resampled(aggregates.mean, [base[::-1] / 2 + 3, base], names(12), 200, 0))
    left = np.subtract(*bootstrap.jackknife(aggregates.mean, [base[::-1] / 2 + 3, base], names(12)))
    df = bootstrap.degrees_of_freedom(np.round(left, 12), 12)
    error = drawn.std() * np.sqrt((df + 1) / df)
    change = change_of(found)
    reach = t.ppf(0.975, df) * error
    assert (change.low, change.high) == pytest.approx((change.value - reach, change.value + reach))
    assert change.p == pytest.approx(2 * t.sf(abs(change.value) / error, df))


def test_the_groups_of_a_difference_may_weigh_alike_where_those_of_the_models_do_not() -> None:
    """One of 25 groups is heavy in both models and not in their difference: df 24, where their sum has 10."""
    base = np.where(np.arange(25) == 3, 0.9, 0.01)
    change = np.tile([0.02, 0.04, 0.03, 0.02, 0.04], 5)
    found = compared(base, base + change, names(25), share=False)
    assert found.change is not None
    assert found.change.df == 24


def test_other_shares_have_a_width_where_nothing_changed() -> None:
    """The F1 of equal models is not "0.000 (0.000 to 0.000)": t of 11 · √2 / (12 + 2), as for a mean."""
    classes = np.arange(12) % 2
    right = np.eye(2)[classes]
    found = compare_paired(partial(aggregates.macro_f1, classes=classes), right, right, names(12), 50, 0)
    reach = t.ppf(0.975, 11) * np.sqrt(2) / 14
    assert (change_of(found).low, change_of(found).high) == pytest.approx((-reach, reach))
    assert change_of(found).p == 1.0


def test_six_groups_of_unequal_weight() -> None:
    """The jackknife and BCa exist from six groups on: fewer degrees of freedom than 5."""
    scores = np.array([0.9, 0.1, 0.1, 0.1, 0.1, 0.1])
    (drawn,) = bootstrap.resampled(aggregates.mean, [scores], names(6), 200, 0)
    df = bootstrap.degrees_of_freedom(bootstrap.jackknife(aggregates.mean, [scores], names(6))[0], 6)
    assert df == pytest.approx(3.75)
    found = compare_paired(aggregates.mean, scores, None, names(6), 200, 0)
    assert (found.base.low, found.base.high) == bootstrap.share_interval(drawn, float(scores.mean()), df)


def test_a_metric_of_one_that_varies_has_no_interval_of_wilson() -> None:
    """Seven of twelve are right: the median is 1, and 0 in some resamples."""
    scores = np.array([1.0] * 7 + [0.0] * 5)
    found = compare_paired(aggregates.median, scores, None, names(12), 200, 0).base
    assert (found.value, found.low, found.high) == (1.0, 0.0, 1.0)


def test_groups_of_a_large_size_count_for_more() -> None:
    """One group of eight images and eight of one: the spread of sizes leaves few degrees of freedom."""
    groups = ["large"] * 8 + [f"p{i}" for i in range(8)]
    base, adapted = np.zeros(16), np.r_[np.ones(8), np.zeros(8)]
    change = change_of(compared(base, adapted, groups))
    sizes = np.r_[0.5, np.full(8, 1 / 16)]
    unevenness = 9 * (sizes**2).sum()
    off = np.r_[0.5 * 0.5, np.full(8, -0.5 / 16)]  # of each group, around the mean of 0.5
    variance = ((off**2).sum() * 9 / 8 * 81 + 2 * unevenness) / 11**2
    reach = t.ppf(0.975, 9 / unevenness - 1) * np.sqrt(variance)
    assert (change.low, change.high) == pytest.approx((0.5 * 9 / 11 - reach, 0.5 * 9 / 11 + reach))
    assert change.sign == 0


def test_classes_weigh_alike_in_a_macro_mean_and_no_resample_can_miss_one() -> None:
    classes = np.array([0] * 30 + [1] * 10)
    base, adapted = np.zeros(40), np.zeros(40)
    adapted[[0, 1, 2, 30]] = 1.0
    macro = partial(aggregates.macro_mean, classes=classes)
    change = change_of(compare_paired(macro, base, adapted, names(40), 50, 0))
    assert change.value == pytest.approx(0.1)
    # Within the classes Σ (d − d̄)²: 3 − 9/30 and 1 − 1/10; weights 1/60 and 1/20; 30/29 and 10/9 for the means.
    squares = (3 - 9 / 30) * 30 / 29 / 60**2 + (1 - 1 / 10) * 10 / 9 / 20**2
    unevenness = 40 * (30 / 60**2 + 10 / 20**2)
    variance = (squares * 40**2 + 2 * unevenness) / 42**2
    reach = t.ppf(0.975, 40 / unevenness - 1) * np.sqrt(variance)
    assert (change.low, change.high) == pytest.approx((4 / 42 - reach, 4 / 42 + reach))


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_all_right_or_all_wrong_has_wilsons_interval(right: float) -> None:
    flat = np.full(12, right)
    groups = [f"p{i // 2}" for i in range(12)]  # six groups count, not twelve items
    found = compare_paired(aggregates.mean, flat, None, groups, 200, 0).base
    assert (found.low, found.high) == closed_form.wilson(6 * right, 6)
    plain = compare_paired(aggregates.mean, flat, None, groups, 200, 0, share=False).base
    assert (plain.low, plain.high) == (right, right)
    half = compare_paired(aggregates.mean, np.full(12, 0.5), None, groups, 200, 0).base
    assert (half.low, half.high) == (0.5, 0.5)


@pytest.mark.parametrize(("groups", "defined"), [(5, False), (6, True)])
def test_six_groups_are_the_fewest_with_an_interval(groups: int, defined: bool) -> None:
    """Six changes of one sign reach p = 2·2⁻⁶ = 0.03125; five cannot be significant."""
    found = compared(np.zeros(groups), np.ones(groups), names(groups))
    bounds = [found.base.low, found.base.high, change_of(found).low, change_of(found).high, found.least_p]
    assert np.isnan(bounds).tolist() == [not defined] * 5
    assert change_of(found).p == pytest.approx(0.03125 if defined else NAN, nan_ok=True)


def test_mcnemar_judges_right_answers_of_independent_items_only() -> None:
    base, adapted = np.zeros(12), np.array([1.0] * 8 + [0.0] * 4)
    base[8] = 1.0  # eight gained, one lost
    found = compared(base, adapted, names(12))
    assert change_of(found).p == closed_form.mcnemar(8, 1) == 20 / 512
    assert found.least_p == 2.0**-11  # of twelve groups
    in_pairs = compared(base, adapted, [f"p{i // 2}" for i in range(12)])
    assert in_pairs.least_p >= 2.0**-4  # five of six groups changed
    for first, second in ((base, adapted / 2), (base / 2, adapted)):  # no right or wrong answers
        assert change_of(compared(first, second, names(12))).p != closed_form.mcnemar(8, 1)
    median = compare_paired(aggregates.median, base, adapted, names(12), 200, 0)
    assert change_of(median).p != closed_form.mcnemar(8, 1)


def test_no_p_below_what_the_changed_groups_allow() -> None:
    """Four of forty groups change, all upwards: 2·2⁻⁴, whatever the resamples show."""
    base, adapted = np.full(40, 2.0), np.full(40, 2.0)
    adapted[:4] = 9.0
    found = compared(base, adapted, names(40), share=False)
    assert found.least_p == change_of(found).p == 2.0**-3
    adapted[:] = 9.0
    many = compared(base, adapted, names(40), share=False)
    assert many.least_p == change_of(many).p == 2.0**-39  # Student's t has no limit of its own


def test_equal_models_have_p_one_and_an_interval_that_is_not_empty() -> None:
    """That no item of twelve changed does not show that none ever would."""
    found = compared(RAMP, RAMP.copy(), names(12))
    reach = t.ppf(0.975, 11) * np.sqrt(2) / 14
    assert (change_of(found).value, change_of(found).p) == (0.0, 1.0)
    assert (change_of(found).low, change_of(found).high) == pytest.approx((-reach, reach))
    assert found.least_p == 1.0  # no group changed: nothing could be shown


def auroc_case(positives: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forty items, of which some are positive; the adapted model ranks them better."""
    rng = np.random.default_rng(3)
    labels = (np.arange(40) < positives).astype(float)
    base = rng.normal(size=40) + 0.3 * labels
    return labels, base, base + rng.normal(size=40) / 2 + 0.5 * labels


def test_an_auroc_is_judged_by_swaps_of_whole_groups() -> None:
    labels, base, adapted = auroc_case(20)
    labels[[5, 25]] = NAN
    aggregate = partial(aggregates.auroc, labels=labels)
    for groups in (names(40), [f"p{i % 20}" for i in range(40)]):
        found = compare_paired(aggregate, base, adapted, groups, 200, 0)
        shares = sign_flips.auroc_shares(base, adapted, labels, groups)
        assert found.change is not None
        assert found.change.exact_p == sign_flips.sign_flip_p(shares, 200, 0)
        assert found.least_p == 1 / 201
        assert change_of(found).p == max(found.change.exact_p, replace(found.change, exact_p=0.0).p)


@pytest.mark.parametrize(("positives", "enough"), [(9, False), (10, True), (30, True), (31, False)])
def test_an_auroc_needs_ten_groups_of_each_class(positives: int, enough: bool) -> None:
    labels, base, adapted = auroc_case(positives)
    for area in (aggregates.auroc, aggregates.average_precision):
        found = compare_paired(partial(area, labels=labels), base, adapted, names(40), 200, 0)
        bounds = [found.base.low, found.base.high, change_of(found).low, change_of(found).high]
        assert np.isnan(bounds).tolist() == [not enough] * 4
        assert (change_of(found).p != change_of(found).p) is not enough
        assert found.base.value == area(base, np.ones((1, 40)), labels)[0]
        reason = (
            f"{positives} groups have the class and {40 - positives} do not: at least 10 of each are needed"
        )
        assert found.too_few == ("" if enough else reason)
    # Two images of one patient are one positive.
    labels[:] = np.arange(40) < 12
    pairs = [f"p{i // 2}" for i in range(40)]
    assert compare_paired(partial(aggregates.auroc, labels=labels), base, None, pairs, 200, 0).too_few


@pytest.mark.parametrize(
    "mean",
    [
        aggregates.macro_auroc,
        aggregates.macro_average_precision,
        partial(aggregates.macro_sensitivity_at_specificity, specificity=0.9),
    ],
)
def test_a_mean_over_classes_needs_one_with_enough_groups(mean: aggregates.Aggregate) -> None:
    scores, groups = np.random.default_rng(0).normal(size=(40, 2)), [str(i) for i in range(40)]
    for positives in ((9, 3), (10, 3)):
        labels = np.stack([np.arange(40) < n for n in positives], axis=1).astype(float)
        found = compare_paired(partial(mean, labels=labels), scores, None, groups, 50, 0)
        few = "no class has 10 groups with it and 10 without: the most are 9"
        assert found.too_few == (few if positives[0] == 9 else "")
        assert np.isnan(found.base.low) == (positives[0] == 9)


def test_an_auroc_that_no_item_changes_has_p_one() -> None:
    labels, base, _ = auroc_case(20)
    aggregate = partial(aggregates.auroc, labels=labels)
    found = compare_paired(aggregate, base, 2 * base + 1, names(40), 200, 0)  # the same order
    assert (change_of(found).value, change_of(found).p) == (0.0, 1.0)


def test_undefined_resamples_are_a_share_of_all() -> None:
    scores = np.array([[1.0, 1.0]] + [[1.0, 0.0]] * 5)  # without the first item no word is counted

    def words(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return aggregates.ratio_of(weights @ scores[:, 0], weights @ scores[:, 1])

    found = compare_paired(words, scores, None, names(6), 200, 0, share=False)
    weights = np.concatenate(list(bootstrap.weight_blocks(names(6), 200, 0)))
    assert found.undefined == (weights[:, 0] == 0).mean() > 0.2


def test_models_are_swapped_by_whole_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the groups in the mean; a claim in one of four comparisons is a rate of 0.25."""
    groups = [f"p{i // 3}" for i in range(60)]
    base, adapted = np.zeros((60, 2)), np.ones((60, 2))
    swapped, seeds = [], []

    def compare(aggregate, first, second, names, resamples, seed):  # type: ignore[no-untyped-def]
        assert (first + second == 1).all()
        by_group = first.reshape(20, 6)
        assert (by_group == by_group[:, :1]).all()
        swapped.append(by_group[:, 0].mean())
        seeds.append(seed)
        shown = Estimate(1.0, 0.5, 1.5)
        return PairedComparison(
            shown, shown, Change(1.0, 1.0, 0.04 if len(seeds) % 4 == 0 else 4.0, 19), 20, 0.0
        )

    monkeypatch.setattr(controls, "compare_paired", compare)
    assert controls.false_positive_rate(aggregates.mean, base, adapted, groups) == 0.25
    assert len(set(seeds)) == len(seeds) == 200  # every comparison draws other resamples
    assert np.mean(swapped) == pytest.approx(0.5, abs=0.03)  # 4000 draws: 3.8 standard errors


def test_each_model_has_its_own_estimate() -> None:
    found = compared(RAMP, RAMP / 2, names(12))
    assert found.adapted is not None
    assert (found.base.value, found.adapted.value) == pytest.approx((RAMP.mean(), RAMP.mean() / 2))
    assert change_of(found).value == pytest.approx(-RAMP.mean() / 2)


def added(differences: list[float], groups: list[str]) -> float:
    """The squared change of the added groups, from the variance: (g + 2)² · variance − g² · Σ sums², over 2 u."""
    values, g = np.array(differences), len(set(groups))
    change = mean_change(values, groups, MeanWeights.of(aggregates.mean, len(values)))  # type: ignore[arg-type]
    member = np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(member, weights=(values - values.mean()) / len(values))
    sizes = np.bincount(member) / len(values)
    within = (sums**2).sum() * g / (g - 1)
    return float((change.variance * (g + 2) ** 2 - within * g**2) / (2 * g * (sizes**2).sum()))


def test_an_added_group_changes_as_much_as_groups_do() -> None:
    pairs = [f"p{i // 2}" for i in range(24)]
    assert added([0.0] * 24, pairs) == pytest.approx(1.0)  # nothing is known
    assert added([1.0, 1.0, -1.0, -1.0] + [0.0] * 20, pairs) == pytest.approx(1.0)  # all images together
    # Six groups change by one image each: design effect (6 + 2/4 · 4) / (6 + 2/4 · 2) = 8/7 of 2, so 4/7.
    assert added([1.0, 0.0] * 6 + [0.0] * 12, pairs) == pytest.approx((4 / 7) ** 2)
    # Single images have no design effect; twelve that change by a half: (12/4 + 2) / (12 + 2).
    singles = [f"p{i}" for i in range(24)]
    assert added([1.0, -1.0] + [0.0] * 22, singles) == pytest.approx(1.0)
    assert added([0.5, -0.5] * 6 + [0.0] * 12, singles) == pytest.approx(5 / 14)
