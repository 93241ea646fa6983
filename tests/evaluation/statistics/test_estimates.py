from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from domainclip.evaluation.statistics import aggregates, bootstrap, closed_form, estimates
from tests.evaluation.statistics.weights import bootstrap_weights

ONE = np.ones((1, 4))
NAN = float("nan")


def names(n: int) -> list[str]:
    return [f"p{i:03d}" for i in range(n)]


def test_bootstrap_weights_draw_whole_groups_with_replacement() -> None:
    groups = ["a", "b", "a", "c", "b", "a", "d"]
    weights = bootstrap_weights(groups, 500, seed=3)
    assert weights.shape == (500, 7)
    assert (weights[:, [0, 0]] == weights[:, [2, 5]]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3, 6]].sum(axis=1) == 4).all()
    assert weights.mean() == pytest.approx(1, abs=0.05)


def test_bootstrap_weights_follow_the_groups_not_the_rows() -> None:
    groups = np.array(["d", "b", "a", "c", "b", "a", "e"])
    order = np.random.default_rng(0).permutation(7)
    weights = bootstrap_weights(groups.tolist(), 50, seed=1)
    permuted = bootstrap_weights(groups[order].tolist(), 50, seed=1)
    assert (permuted == weights[:, order]).all()


def test_another_seed_draws_otherwise() -> None:
    first, second = (bootstrap_weights(names(9), 20, seed) for seed in (0, 1))
    assert (first != second).any()


def test_interval_leaves_out_what_is_undefined() -> None:
    values = np.concatenate([np.arange(101.0), [NAN] * 7])
    assert bootstrap.interval(values) == pytest.approx((2.5, 97.5))
    assert all(np.isnan(bootstrap.interval(np.array([NAN, NAN]))))


def test_p_of_equal_models_is_one_and_never_zero() -> None:
    assert bootstrap.p_value(np.zeros(99)) == 1.0
    assert bootstrap.p_value(np.ones(99)) == pytest.approx(2 / 100)
    assert bootstrap.p_value(np.array([-1.0] * 10 + [1.0] * 89)) == pytest.approx(2 * 11 / 100)
    assert bootstrap.p_value(np.array([1.0] * 10 + [-1.0] * 89)) == pytest.approx(2 * 11 / 100)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"), [(0, 20, 0, 0.1611), (10, 10, 0.7225, 1), (45, 50, 0.7864, 0.9565)]
)
def test_wilson(right: int, n: int, low: float, high: float) -> None:
    assert closed_form.wilson(right, n) == pytest.approx((low, high), abs=5e-5)


def test_auroc_by_hand() -> None:
    labels = np.array([0.0, 0, 1, 1])
    assert aggregates.auroc(np.array([0.1, 0.4, 0.35, 0.8]), ONE, labels) == pytest.approx([0.75])
    assert aggregates.auroc(np.ones(4), ONE, labels) == pytest.approx([0.5])
    assert np.isnan(aggregates.auroc(np.ones(4), ONE, np.ones(4))).all()
    assert np.isnan(aggregates.auroc(np.ones(4), ONE, np.full(4, NAN))).all()


def test_auroc_equals_scikit_learn_under_weights_and_ties() -> None:
    rng = np.random.default_rng(5)
    scores, labels = rng.integers(0, 6, 60) / 7, rng.integers(0, 2, 60).astype(float)
    weights = rng.integers(0, 4, (40, 60)).astype(float)
    expected = [roc_auc_score(labels, scores, sample_weight=row) for row in weights]
    assert aggregates.auroc(scores, weights, labels) == pytest.approx(expected, abs=1e-12)


def test_auroc_leaves_out_unknown_labels() -> None:
    rng = np.random.default_rng(6)
    scores, labels = rng.normal(size=30), rng.integers(0, 2, 30).astype(float)
    weights = rng.integers(1, 3, (5, 30)).astype(float)
    hidden = np.where(np.arange(30) < 8, NAN, labels)
    expected = aggregates.auroc(scores[8:], weights[:, 8:], labels[8:])
    assert (aggregates.auroc(scores, weights, hidden) == expected).all()


def test_macro_auroc_is_the_mean_over_classes_that_have_both_sides() -> None:
    rng = np.random.default_rng(7)
    scores, labels = rng.normal(size=(40, 3)), rng.integers(0, 2, (40, 3)).astype(float)
    labels[:, 2] = 1
    expected = np.mean([roc_auc_score(labels[:, i], scores[:, i]) for i in range(2)])
    assert aggregates.macro_auroc(scores, np.ones((1, 40)), labels) == pytest.approx([expected])


def test_means_equal_scikit_learn_on_a_majority_guesser() -> None:
    truth = np.array([0] * 90 + [1] * 10)
    hits = (truth == 0).astype(float)
    weights = np.ones((1, 100))
    assert aggregates.mean(hits, weights) == pytest.approx([0.9])
    assert aggregates.macro_mean(hits, weights, truth) == pytest.approx([0.5])
    drawn = np.random.default_rng(0).integers(0, 3, (6, 100)).astype(float)
    expected = [balanced_accuracy_score(truth, np.zeros(100), sample_weight=row) for row in drawn]
    assert aggregates.macro_mean(hits, drawn, truth) == pytest.approx(expected)


def test_macro_mean_counts_only_classes_that_were_drawn() -> None:
    weights = np.array([[1.0, 1, 0], [0, 0, 0]])
    values = aggregates.macro_mean(np.array([1.0, 0, 1]), weights, np.array([0, 1, 2]))
    assert values[0] == 0.5
    assert np.isnan(values[1])


def test_median_equals_numpy_on_repeated_scores() -> None:
    rng = np.random.default_rng(2)
    scores = rng.integers(0, 9, 25) / 2
    weights = rng.integers(0, 3, (200, 25))
    expected = [np.median(np.repeat(scores, row)) for row in weights]
    assert (aggregates.median(scores, weights.astype(float)) == expected).all()
    assert np.isnan(aggregates.median(scores, np.zeros((1, 25)))).all()


def test_compare_of_equal_models_is_exactly_nothing() -> None:
    """Fault 40."""
    scores = np.random.default_rng(0).random(50)
    found = estimates.compare_paired(aggregates.mean, scores, scores.copy(), names(50), 300, seed=0)
    assert found.difference is not None
    assert (found.difference.value, found.difference.p, found.difference.sign) == (0.0, 1.0, 0)
    assert found.difference.low == pytest.approx(-found.difference.high)
    assert found.base == found.adapted


def test_compare_pairs_the_models_on_the_same_items() -> None:
    rng = np.random.default_rng(1)
    easy = rng.random(200)
    found = estimates.compare_paired(aggregates.mean, easy, easy + 0.05, names(200), 500, seed=0)
    assert found.adapted is not None
    assert found.difference is not None
    # Unpaired, a shift of 0.05 would drown in intervals of width 0.08 each.
    assert found.base.high > found.adapted.low
    assert 0.03 < found.difference.low < found.difference.value < found.difference.high < 0.07
    assert found.difference.sign == 1


def test_ties_worth_a_third_leave_no_speck_of_difference() -> None:
    base, adapted = np.full(30, 1 / 3), np.array([1.0, 0.0, 0.0] * 10)
    groups = [f"p{i // 3:02d}" for i in range(30)]  # in every group the sums agree
    found = estimates.compare_paired(aggregates.mean, base, adapted, groups, 400, seed=0)
    assert found.difference is not None
    assert (found.difference.value, found.difference.p) == (0.0, 1.0)
    assert found.difference.low == pytest.approx(-found.difference.high)


def test_images_of_one_patient_do_not_count_as_many() -> None:
    scores = np.repeat(np.random.default_rng(4).random(20), 10)
    patients = [f"p{i // 10:02d}" for i in range(200)]
    low, high = bootstrap.interval(bootstrap.resampled(aggregates.mean, [scores], patients, 2000, 0)[0])
    narrow = bootstrap.interval(bootstrap.resampled(aggregates.mean, [scores], names(200), 2000, 0)[0])
    assert (high - low) / (narrow[1] - narrow[0]) == pytest.approx(np.sqrt(10), rel=0.1)


def test_five_groups_give_no_interval() -> None:
    found = estimates.compare_paired(
        aggregates.mean, np.zeros(10), np.ones(10), ["a", "b", "c", "d", "e"] * 2, 100, 0
    )
    assert found.difference is not None
    assert found.difference.value == 1.0
    assert found.difference.p is not None
    assert all(np.isnan([found.base.low, found.difference.low, found.difference.p]))
    assert found.difference.sign == 0


def test_all_right_is_not_certainly_all_right() -> None:
    found = estimates.compare_paired(aggregates.mean, np.ones(10), None, names(10), 100, seed=0)
    assert found.base.value == 1.0
    assert (found.base.low, found.base.high) == pytest.approx((0.7225, 1.0), abs=5e-5)
    ranks = estimates.compare_paired(aggregates.median, np.ones(10), None, names(10), 100, 0, share=False)
    assert (ranks.base.low, ranks.base.high) == (1.0, 1.0)


def test_undefined_resamples_are_counted() -> None:
    labels = np.array([1.0] + [0.0] * 19)
    macro = partial(aggregates.macro_auroc, labels=labels[:, None])
    found = estimates.compare_paired(macro, np.arange(20.0)[:, None], None, names(20), 2000, 0)
    assert found.undefined == pytest.approx((19 / 20) ** 20, abs=0.03)
    assert found.too_few == "no class has 10 groups with it and 10 without: the most are 1"


def test_the_clustered_interval_covers_the_truth_and_the_plain_one_does_not() -> None:
    rng = np.random.default_rng(8)
    covered = {"by patient": 0, "by image": 0}
    for trial in range(200):
        scores = np.repeat(rng.normal(size=40), 5) + 0.3 * rng.normal(size=200)
        patients = [f"p{i // 5:02d}" for i in range(200)]
        for name, groups in (("by patient", patients), ("by image", names(200))):
            figure = estimates.compare_paired(
                aggregates.mean, scores, None, groups, 300, trial, share=False
            ).base
            covered[name] += figure.low <= 0 <= figure.high
    assert 0.90 <= covered["by patient"] / 200 <= 0.98
    assert covered["by image"] / 200 < 0.75


def test_two_models_of_equal_skill_are_seldom_called_different() -> None:
    rng = np.random.default_rng(9)
    better = 0
    for trial in range(300):
        base, adapted = (rng.random((2, 80)) < 0.6).astype(float)
        found = estimates.compare_paired(aggregates.mean, base, adapted, names(80), 300, seed=trial)
        assert found.difference is not None
        better += found.difference.sign == 1
    assert better / 300 <= 0.05
