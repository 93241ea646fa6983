from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.coverage_worlds import Pair, retrieval
from domainclip.evaluation.statistics.changes import Change
from domainclip.evaluation.statistics.estimates import PairedComparison, compare_paired
from domainclip.evaluation.statistics.gallery_effects import GalleryEffects, QueryParts
from domainclip.evaluation.statistics.seeds import over_seeds

EACH = QueryParts(np.arange(4), np.arange(4), np.eye(4))
CAPTIONS = np.ones(40)


def of_hub() -> GalleryEffects:
    """Four queries, of which one is right; without the answer of the last, two others would be."""
    without = np.array([[1.0, 0, 0, 0]] * 3 + [[1.0, 1, 1, 0]])
    return GalleryEffects.of(np.array([1.0, 0, 0, 0]), without, EACH, CAPTIONS)


def test_the_effects_of_a_hub_by_hand() -> None:
    """In sixteenths: answers 5, 1, 1, -7; (76 - 12) / 256 of them, less two pairs of 1/16, times 4/3."""
    effects = of_hub()
    assert effects.resampled == pytest.approx(np.array([3, -1, -1, -1]) / 16)
    assert effects.answers == pytest.approx(np.array([5, 1, 1, -7]) / 16)
    assert effects.pairs == pytest.approx(
        np.diag([3, -1, -1, -1]) / 16 + np.array([[0] * 4, [0, 0, 0, -1], [0, 0, 0, -1], [0] * 4]) / 4
    )
    assert effects.own_variance == pytest.approx(12 / 256 * 4 / 3)
    assert effects.added_variance == pytest.approx((64 / 256 - 2 / 16) * 4 / 3)


def test_patients_in_pairs_under_one_caption_count_as_half_as_many() -> None:
    """The same variance again, for two captions that are right for two patients each."""
    scores, right = np.array([1.0, 1, 0, 0]), np.eye(4)[[0, 0, 2, 2]]
    parts = QueryParts(np.arange(4), np.arange(4), right)
    effects = GalleryEffects.of(scores, np.tile(scores, (4, 1)), parts, CAPTIONS)
    assert effects.added_variance == pytest.approx(effects.own_variance) == pytest.approx(1 / 12)
    alone = GalleryEffects.of(scores, np.tile(scores, (4, 1)), EACH, CAPTIONS)
    assert alone.added_variance == 0.0


def test_texts_that_several_patients_ask_count_once_as_queries() -> None:
    """Text to image, two texts of two patients each; every patient has the image that is right."""
    scores = np.array([1.0, 1, 0, 0])
    parts = QueryParts(np.array([0, 0, 2, 2]), np.arange(4), np.eye(4))
    effects = GalleryEffects.of(scores, np.tile(scores, (4, 1)), parts, CAPTIONS)
    assert effects.added_variance == pytest.approx(effects.own_variance)


def test_the_answers_widen_the_interval_of_a_mean_by_a_sum_and_of_a_median_by_a_factor() -> None:
    change = Change(0.1, 0.1, 0.1, 9.0)
    of_mean, of_median = (of_hub().widened(change, of_mean=flag) for flag in (True, False))
    assert (of_mean.variance, of_mean.df) == (pytest.approx(0.1 + 1 / 6), 4.0)  # of 3.6 parts: at least 4
    assert of_median.variance == pytest.approx(0.1 * (1 + 1 / 6 / (1 / 16)))
    assert of_mean.p > change.p


def test_degrees_of_freedom_are_below_the_effective_number_of_captions() -> None:
    """Half of all under one caption and the rest of one each: 1 / (1/4 + 12 / 24²) less one."""
    half = replace(of_hub(), captions=np.array([12.0, *[1] * 12]))
    assert half.df == pytest.approx(1 / (1 / 4 + 12 / 24**2) - 1)


def test_a_query_is_not_scored_without_the_part_of_its_right_answer() -> None:
    scores = np.array([1.0, 0.0])
    parts = QueryParts(np.arange(2), np.arange(2), np.eye(2))
    effects = GalleryEffects.of(scores, np.array([[0.0, 0.0], [1.0, 0.7]]), parts, CAPTIONS)
    assert effects.pairs == pytest.approx(np.diag([0.25, -0.25]))


def test_equal_effects_of_two_models_add_nothing_to_their_difference() -> None:
    none = of_hub().minus(of_hub())
    change = Change(0.1, 0.1, 0.1, 9.0)
    assert none.df == pytest.approx(39)
    assert (none.added_variance, none.widened(change, of_mean=True)) == (0.0, change)
    assert GalleryEffects.mean([of_hub(), of_hub()]).added_variance == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([1] * 5, "there are only 5 captions: at least 6 are needed"),
        ([1] * 6, ""),
        ([12, *[1] * 12], ""),  # half: 3.7 of equal size
        (
            [18, *[1] * 6],
            "one caption is 75% of all, and all count as 1.7 of equal frequency: at least 3 are needed",
        ),
    ],
)
def test_too_few_captions_are_refused_with_the_counts(counts: list[int], reason: str) -> None:
    text = replace(of_hub(), captions=np.array(counts)).too_few
    assert reason in text if reason else text == ""


def compared(pair: Pair, seed: int) -> PairedComparison:
    return compare_paired(
        pair.aggregate, pair.base, pair.adapted, pair.groups, 60, seed, gallery=pair.gallery
    )


def test_equal_models_with_hubs_are_not_called_different() -> None:
    """Negative control: without the answers, as patients alone are resampled, a quarter is."""
    rng, world = np.random.default_rng(0), retrieval(30, 4.0)
    claims = {"patients": 0, "with answers": 0}
    for trial in range(50):
        drawn = world.draw(rng)
        assert drawn.after is not None
        for name, pair in (("patients", drawn.before), ("with answers", drawn.after)):
            change = compared(pair, trial).difference
            assert change is not None
            claims[name] += change.sign != 0
            assert (change.low > 0 or change.high < 0) == (change.p is not None and change.p <= 0.05)
    assert claims["patients"] >= 6
    assert claims["with answers"] <= 3


def test_captions_of_few_groups_are_not_judged() -> None:
    rng = np.random.default_rng(1)
    for world, count in (
        (retrieval(30, 1.0, few=5), "only 5 captions"),
        (retrieval(40, 1.0, alike=0.75), "75%"),
    ):
        drawn = world.draw(rng)
        assert drawn.after is not None
        found = compared(drawn.after, 0)
        assert found.difference is not None
        assert np.isnan([found.difference.low, found.difference.p]).all()
        assert count in found.too_few


def test_several_seeds_have_the_variance_of_the_answers_too() -> None:
    drawn = retrieval(60, 4.0).draw(np.random.default_rng(4)).after
    assert drawn is not None
    first, second = drawn.gallery
    scores = {"v": {0: drawn.adapted, 1: drawn.adapted}}
    plain, with_answers = (
        over_seeds(drawn.aggregate, drawn.base, scores, drawn.groups, 60, 0, **extra)["v"].base_change  # type: ignore[arg-type]
        for extra in ({}, {"base_effects": first, "effects": {"v": {0: second, 1: second}}})
    )
    added = second.minus(first).added_variance
    assert added > 0
    assert with_answers.variance == pytest.approx(plain.variance + added)
    alone = compared(replace(drawn, gallery=drawn.gallery), 0).change
    assert alone is not None
    assert with_answers.variance == pytest.approx(alone.variance)


def test_the_interval_of_one_model_is_wider_with_hubs() -> None:
    drawn = retrieval(60, 4.0).draw(np.random.default_rng(4)).after
    assert drawn is not None
    plain, with_answers = (compared(replace(drawn, gallery=g), 0).base for g in ((), drawn.gallery))
    assert with_answers.high - with_answers.low > 1.2 * (plain.high - plain.low)
    assert 0 <= with_answers.low < with_answers.value < with_answers.high <= 1
