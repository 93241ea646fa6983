"""Values worked out elsewhere, and libraries as oracles: random, tied, one-class and tiny inputs."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torchmetrics.functional.classification import binary_calibration_error

from domainclip.evaluation.statistics import aggregates, closed_form, sign_flips
from domainclip.evaluation.statistics import bootstrap as statistics_bootstrap

NAN = float("nan")


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels: few or many, tied or not, one-sided or not."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    levels = int(rng.choice([1, 2, 5, 10_000]))
    return rng.integers(0, levels, n) / levels, (rng.random(n) < rng.choice([0, 0.1, 0.5, 1])).astype(float)


@pytest.mark.parametrize("seed", range(60))
def test_areas_equal_scikit_learn(seed: int) -> None:
    """Fault 38."""
    scores, labels = random_case(seed)
    n = len(scores)
    weights = np.random.default_rng(seed).integers(0, 3, (6, n)).astype(float)
    areas = aggregates.auroc(scores, weights, labels)
    precisions = aggregates.average_precision(scores, weights, labels)
    for row, area, precision in zip(weights, areas, precisions, strict=True):
        kept = labels[row > 0]
        if 0 < kept.sum() < len(kept):
            assert area == pytest.approx(roc_auc_score(labels, scores, sample_weight=row), abs=1e-12)
        else:
            assert np.isnan(area)
        if kept.sum():
            expected = average_precision_score(labels, scores, sample_weight=row)
            assert precision == pytest.approx(expected, abs=1e-12)
        else:
            assert np.isnan(precision)


def test_areas_by_hand() -> None:
    labels, scores = np.array([0.0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    assert aggregates.point_estimate(partial(aggregates.auroc, labels=labels), scores) == 0.75
    area = partial(aggregates.average_precision, labels=labels)
    assert aggregates.point_estimate(area, scores) == pytest.approx(0.8333, abs=5e-5)
    assert aggregates.point_estimate(area, np.ones(4)) == 0.5
    # The same ties in another order: a sum over sorted rows would give 1.0 or 0.4167.
    assert (
        aggregates.point_estimate(partial(aggregates.average_precision, labels=labels[::-1]), np.ones(4))
        == 0.5
    )
    one = np.array([0.0, 0, 0, 1])
    assert aggregates.point_estimate(partial(aggregates.average_precision, labels=one), np.ones(4)) == 0.25


@pytest.mark.parametrize("seed", range(40))
def test_macro_f1_equals_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, c = int(rng.integers(1, 30)), int(rng.integers(2, 6))
    truth, answer = rng.integers(0, c, n), rng.integers(0, c, n)
    found = partial(aggregates.macro_f1, classes=truth)
    shares = np.eye(c)[answer]
    expected = f1_score(truth, answer, labels=np.unique(truth), average="macro", zero_division=0)
    assert aggregates.point_estimate(found, shares) == pytest.approx(expected, abs=1e-12)
    everyone = partial(aggregates.macro_f1, classes=truth, of=np.arange(c))
    expected = f1_score(truth, answer, average="macro", zero_division=0)
    assert aggregates.point_estimate(everyone, shares) == pytest.approx(expected, abs=1e-12)
    row = rng.integers(0, 3, n)
    if row.sum():
        again = np.repeat(np.arange(n), row)
        # A class that the resample misses has F1 0 where it is answered, and none where it is not.
        classes = np.intersect1d(truth, np.union1d(truth[again], answer[again]))
        expected = f1_score(truth[again], answer[again], labels=classes, average="macro", zero_division=0)
        assert found(shares, row[None].astype(float))[0] == pytest.approx(expected, abs=1e-12)


def test_a_majority_guesser() -> None:
    truth = np.array([0] * 90 + [1] * 10)
    guesses = np.eye(2)[np.zeros(100, dtype=int)]
    assert aggregates.point_estimate(partial(aggregates.macro_f1, classes=truth), guesses) == pytest.approx(
        0.473684, abs=5e-7
    )


def binned(confidence: list[float], right: list[float], bins: int) -> np.ndarray:
    """What the calibration probe hands over, by a plain loop."""
    scores = np.zeros((len(confidence), 1 + bins))
    for row, (sure, truth) in enumerate(zip(confidence, right, strict=True)):
        scores[row, 0] = 1
        scores[row, 1 + min(int(sure * bins), bins - 1)] = sure - truth
    return scores


def test_calibration_error_by_hand_and_as_torchmetrics() -> None:
    two = binned([0.25, 0.25, 0.55, 0.75, 0.75], [0, 0, 1, 1, 1], 2)
    assert aggregates.point_estimate(aggregates.calibration_error, two) == pytest.approx(0.29)
    ten = binned([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 1], 10)
    assert aggregates.point_estimate(aggregates.calibration_error, ten) == pytest.approx(0.4)
    rng = np.random.default_rng(0)
    for _ in range(20):
        sure = rng.random(30)
        right = (rng.random(30) < sure).astype(float)
        expected = binary_calibration_error(torch.tensor(sure), torch.tensor(right).long(), n_bins=15)
        # torchmetrics takes p of the positive class as the confidence, as our multi-label form does.
        ours = aggregates.point_estimate(
            aggregates.calibration_error, binned(sure.tolist(), right.tolist(), 15)
        )
        assert ours == pytest.approx(float(expected), abs=1e-5)


def test_wilson_equals_scipy() -> None:
    for n, right in product((1, 7, 50), (0, 1, 7, 30, 50)):
        if right <= n:
            test = binomtest(right, n)
            score = test.proportion_ci(method="wilson")
            assert closed_form.wilson(right, n) == pytest.approx((score.low, score.high), abs=1e-12)


def test_mcnemar() -> None:
    assert closed_form.mcnemar(10, 2) == pytest.approx(0.0385742, abs=5e-8)
    assert closed_form.mcnemar(5, 5) == 1.0
    assert closed_form.mcnemar(1, 8) == closed_form.mcnemar(8, 1) == 0.0390625
    assert closed_form.mcnemar(0, 0) == 1.0
    for gained, lost in product(range(12), range(12)):
        if gained + lost:
            expected = binomtest(gained, gained + lost).pvalue
            assert closed_form.mcnemar(gained, lost) == pytest.approx(expected, abs=1e-12)


def plain_delong(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The 1988 definition read aloud: every positive against every negative."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = wins.mean(1).var(ddof=1) / len(positive) + wins.mean(0).var(ddof=1) / len(negative)
    return float(wins.mean()), float(np.sqrt(variance))


def test_delong_and_the_bootstrap_agree() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, 400).astype(float)
    scores = rng.normal(size=400) + labels
    names = [f"{i:03d}" for i in range(400)]
    area, error = plain_delong(scores, labels)
    metric = partial(aggregates.auroc, labels=labels)
    assert aggregates.point_estimate(metric, scores) == pytest.approx(area)
    (drawn,) = statistics_bootstrap.resampled(metric, [scores], names, 1000, 0)
    low, high = statistics_bootstrap.interval(drawn)
    assert (high - low) / (2 * 1.96) == pytest.approx(error, rel=0.1)


def test_bca_equals_scipy() -> None:
    scores = np.random.default_rng(1).exponential(size=60)
    names = [f"{i:03d}" for i in range(60)]
    left_out = statistics_bootstrap.jackknife(aggregates.mean, [scores], names)[0]
    drawn = np.concatenate(
        [aggregates.mean(scores, w) for w in statistics_bootstrap.weight_blocks(names, 9999, 0)]
    )
    found = statistics_bootstrap.bca(drawn, scores.mean(), left_out)
    expected = bootstrap((scores,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(2))
    low, high = expected.confidence_interval
    assert found == pytest.approx((low, high), abs=0.02)
    assert found is not None
    # Skewed scores: BCa leans to the right of the percentiles.
    assert found[1] > statistics_bootstrap.interval(drawn)[1]


def test_bca_does_not_exist_without_spread_or_where_a_left_out_group_leaves_nothing() -> None:
    drawn = np.random.default_rng(0).normal(size=200)
    assert statistics_bootstrap.bca(np.full(200, 0.5), 0.4, np.full(9, 0.5)) is None
    assert statistics_bootstrap.bca(drawn, 0.0, np.array([np.nan, 0.1, 0.2])) is None
    assert statistics_bootstrap.bca(drawn, 9.0, np.array([0.0, 0.1, 0.2])) is None  # all on one side


def test_shares_of_the_groups_add_up_to_the_difference_of_two_aurocs() -> None:
    rng = np.random.default_rng(3)
    for ties in (1000, 3):
        labels = np.r_[np.ones(20), np.zeros(80)]
        first, second = (rng.integers(0, ties, 100) + labels for _ in range(2))
        groups = [f"{i // 3}" for i in range(100)]
        shares = sign_flips.auroc_shares(first, second, labels, groups)
        assert shares.shape == (34,)
        assert shares.sum() == pytest.approx(roc_auc_score(labels, second) - roc_auc_score(labels, first))
    # Of several classes the mean, without those that have one side only, and without unknown labels.
    labels = np.stack([labels, np.ones(100), np.r_[np.full(10, np.nan), labels[10:]]], axis=1)
    first, second = rng.normal(size=(2, 100, 3))
    expected = [
        roc_auc_score(labels[rows, c], scores[rows, c])
        for scores in (second, first)
        for c, rows in ((0, slice(None)), (2, slice(10, None)))
    ]
    shares = sign_flips.auroc_shares(first, second, labels, groups)
    assert shares.sum() == pytest.approx((sum(expected[:2]) - sum(expected[2:])) / 2)


def test_sign_flips_against_all_assignments() -> None:
    shares = np.array([0.3, 0.2, -0.1, 0.25, 0.05, 0.0])
    sums = [
        abs(sum(s * v for s, v in zip(signs, shares, strict=True))) for signs in product((-1, 1), repeat=6)
    ]
    exact = np.mean([one >= abs(shares.sum()) - 1e-12 for one in sums])
    assert sign_flips.sign_flip_p(shares, 20_000, 0) == pytest.approx(exact, abs=0.01)
    assert sign_flips.sign_flip_p(np.zeros(4), 50, 0) == 1.0
    assert sign_flips.sign_flip_p(np.ones(40), 99, 0) == pytest.approx(0.01)
    assert np.isnan(sign_flips.sign_flip_p(np.array([np.nan, 1.0]), 99, 0))


def test_a_sum_of_signs_counts_ties_and_leaves_out_groups_that_did_not_change() -> None:
    # Of three equal shares, two of eight sign vectors are as far from zero as the observed sum: p near 1/4.
    p = sign_flips.sign_flip_p(np.array([0.1, 0.1, 0.1, 0.0]), 4000, 1)
    assert p == pytest.approx(0.25, abs=0.03)
    assert p != sign_flips.sign_flip_p(np.array([0.1, 0.1, 0.1, 0.0]), 4000, 2)  # another seed, other signs
    assert sign_flips.sign_flip_p(np.array([1.0]), 1, 0) == 1.0


def test_a_group_without_a_positive_has_a_share_of_its_negatives() -> None:
    # Ranks of four items move from 1 2 3 4 to 4 2 3 1: the positive falls by 3, the last negative rises by 3.
    base, adapted = np.array([1.0, 2, 3, 4]), np.array([4.0, 2, 3, 1])
    labels = np.array([0.0, 0, 0, 1])
    shares = sign_flips.auroc_shares(base, adapted, labels, ["a", "b", "c", "d"])
    assert shares == pytest.approx([-1 / 3 * 3 / 4, 0, 0, -3 / 4])
    assert np.isnan(sign_flips.auroc_shares(base, adapted, np.ones(4), ["a", "b", "c", "d"])).all()
