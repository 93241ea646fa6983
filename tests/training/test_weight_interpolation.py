"""The rule that picks α, and what a limit on the retention drop allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from domainclip.config.recipe import WeightInterpolation
from domainclip.evaluation.base import Metric, ProbeResult
from domainclip.evaluation.protocol import Protocol
from domainclip.evaluation.statistics.aggregates import mean
from domainclip.training import weight_interpolation
from domainclip.training.alpha_choice import AlphaScore, InterpolationResult, choose_alpha
from domainclip.training.weight_interpolation import _AlphaSearch, _paired_error, _score
from domainclip.training.weight_path import Alphas
from tests.report.made_results import row


def _error(error: float) -> Callable[[float, float], float]:
    return lambda alpha, best: error


def test_the_smallest_within_one_standard_error_of_the_best_wins() -> None:
    scores = {1.0: 0.59, 0.5: 0.58, 0.25: 0.50, 0.75: 0.60, 0.0: 0.4}
    tried = [AlphaScore(alpha, score) for alpha, score in scores.items()]
    assert choose_alpha(tried, _error(0.03)) == 0.5
    assert choose_alpha(tried, _error(0.001)) == 0.75
    assert choose_alpha(tried, _error(1.0)) == 0.25  # the base is no candidate where an α improves it
    assert choose_alpha([*tried, AlphaScore(0.1, 0.39)], _error(1.0)) == 0.25  # nor is what is worse than it
    assert choose_alpha(tried, _error(float("nan"))) == 0.75  # too few groups: the best itself
    # The error is that of the difference from the best, and of no other pair.
    asked: list[tuple[float, float]] = []
    choose_alpha(tried, lambda alpha, best: asked.append((alpha, best)) or 0.0)  # type: ignore[func-returns-value]
    assert asked == [(0.25, 0.75), (0.5, 0.75)]


def test_a_model_that_is_no_better_than_the_base_at_any_alpha_stays_the_base() -> None:
    scores = {0.0: 0.61, 0.25: 0.60, 0.5: 0.61, 1.0: 0.5}
    tried = [AlphaScore(alpha, score) for alpha, score in scores.items()]
    assert choose_alpha(tried, _error(1.0)) == 0.0
    (warning,) = _result(0.0, tried, None, groups=0).warnings()
    assert warning == (
        "weight_interpolation: adaptation did not help: on the validation split zero_shot macro_accuracy is "
        "0.610 for the base and 0.610 for the best α (0.5), so α = 0 was taken and the model has the weights of "
        "the base"
    )
    # Negative control: one α that is better, by however little, and the base is left.
    assert choose_alpha([*tried, AlphaScore(0.1, 0.6101)], _error(0.0)) == 0.1
    assert _result(0.1, tried, None, groups=0).warnings() == ()


def test_the_error_is_paired() -> None:
    """Both models err on the same half of the items: each score is unsure, their difference is not.

    Ten groups; α = 0.5 has 0.4 in half of them and 0.8 in the others, α = 1 has 0.01 more in each, and 0.03 more in
    every other: differences 0.01 and 0.03, so s² = 10 · 0.0001 / 9 and the error is s / √10 = 0.0033. That of one
    score alone is about 0.2 / √9 = 0.067.
    """
    groups = [f"g{i}" for i in range(10)]
    half = np.repeat([0.4, 0.8], 5)

    def metric(scores: np.ndarray) -> Metric:
        return Metric("accuracy", groups, groups, scores, mean)

    measured = {0.5: metric(half), 1.0: metric(half + np.tile([0.01, 0.03], 5))}
    error = _paired_error(measured, 0, 0.5, 1.0)
    assert error == pytest.approx(0.0033, rel=0.15)
    gap = 0.02  # the mean difference: far more than the paired error, far less than that of a score
    tried = [AlphaScore(0.0, 0.1), AlphaScore(0.5, 0.6), AlphaScore(1.0, 0.6 + gap)]
    assert choose_alpha(tried, lambda a, b: _paired_error(measured, 0, a, b)) == 1.0
    assert choose_alpha(tried, _error(0.067)) == 0.5
    few = {alpha: replace(one, groups=["g"] * 10) for alpha, one in measured.items()}
    assert math.isnan(_paired_error(few, 0, 0.5, 1.0))


def test_a_floor_leaves_only_alphas_that_keep_what_the_base_knows() -> None:
    general = {0.0: 0.50, 0.25: 0.51, 0.5: 0.49, 0.75: 0.45, 1.0: 0.30}
    scores = {0.0: 0.20, 0.25: 0.30, 0.5: 0.40, 0.75: 0.50, 1.0: 0.60}
    tried = [AlphaScore(alpha, scores[alpha], general[alpha], 0.5 - general[alpha]) for alpha in scores]
    exact = _error(0.0)
    assert choose_alpha(tried, exact, 0.0) == 0.25
    assert choose_alpha(tried, exact, 0.01) == 0.5  # exactly at the floor is above it
    assert choose_alpha(tried, exact, 0.05) == 0.75
    assert choose_alpha(tried, exact, 0.9) == 1.0
    assert choose_alpha(tried, _error(0.1), 0.05) == 0.5  # within one standard error of 0.75
    # The set is too small to show anything, so the estimates decide, and the report says so.
    (warning,) = _result(0.5, tried, 0.01, groups=60).warnings()
    assert warning == (
        "weight_interpolation.max_retention_drop: a drop of at most 0.01 cannot be shown with 60 groups of the "
        "retention set, so the estimate decides: name a retention set of 277 groups or more, or allow a drop of 0.046"
    )
    # Where every step costs more than the floor, or gains nothing, the base stays.
    assert choose_alpha([tried[0], AlphaScore(1.0, 0.9, 0.49, 0.01)], exact, 0.001) == 0.0
    assert choose_alpha([tried[0], AlphaScore(1.0, 0.2, 0.5)], exact, 0.1) == 0.0


def test_a_floor_is_met_by_the_bound_and_not_by_the_estimate() -> None:
    bounds = {0.0: 0.004, 0.25: 0.008, 0.5: 0.012, 0.75: 0.009, 1.0: 0.05}
    tried = [AlphaScore(alpha, alpha, 0.5, drop_at_most=bound) for alpha, bound in bounds.items()]
    exact = _error(0.0)
    assert choose_alpha(tried, exact, 0.01) == 0.25  # beyond the first that fails, nothing is tested
    assert choose_alpha(tried, exact, 0.012) == 0.75
    assert choose_alpha(tried, exact, 0.5) == 1.0
    assert choose_alpha(tried[:1] + tried[2:], exact, 0.01) == 0.0
    (warning,) = _result(0.0, tried, 0.01, groups=500).warnings()
    assert "is shown to stay within this drop: the model has the weights of the base" in warning
    assert _result(0.25, tried, 0.01, groups=500).warnings() == ()
    assert _result(0.25, tried, None, groups=500).warnings() == ()
    assert _result(0.25, tried, 0.01, groups=500).facts()["drop_at_most"]["1.0"] == 0.05


def _result(alpha: float, tried: list[AlphaScore], floor: float | None, groups: int) -> InterpolationResult:
    return InterpolationResult(alpha, tried, floor, "zero_shot macro_accuracy", "share", groups)


def test_the_largest_drop_of_any_headline_metric_counts() -> None:
    """Recognition keeps its 50 of 100; search, another probe, falls from 60 to 50: the drop is 0.1."""
    groups = [f"g{i}" for i in range(100)]

    def general(probe: str, right: int) -> ProbeResult:
        scores = (np.arange(100) < right).astype(float)
        return ProbeResult(
            probe, "general", [Metric("accuracy", groups, groups, scores, mean)], "accuracy", 1
        )

    base = [general("zero_shot", 50), general("retrieval", 60)]
    protocol = Protocol([], {}, bootstrap_samples=200)
    metric = row("accuracy", "validation")
    measured = base[0].metrics[0]
    scores = {}
    for name, results in {
        "base": base,
        "adapted": [general("zero_shot", 50), general("retrieval", 50)],
    }.items():
        scores[name] = _score(1.0, measured, results, base, metric, protocol)
    assert (scores["base"].drop, scores["adapted"].drop) == (0.0, pytest.approx(0.1))
    assert scores["adapted"].general == 0.5
    assert 0.1 < scores["adapted"].drop_at_most < 0.2
    assert scores["base"].drop_at_most < 0.03
    # Negative control: by the probe that selects alone, nothing was lost.
    alone = _score(1.0, measured, [general("zero_shot", 50)], base, metric, protocol)
    assert alone.drop == 0.0


def test_the_half_that_nothing_was_chosen_on_is_held_against_the_floor() -> None:
    result = _result(1.0, [], 0.01, groups=500)
    lost = row(dataset="general", difference=(-0.038, -0.06, -0.016, 0.001), n=400)
    assert result.unmet([lost]) == (
        "weight_interpolation.max_retention_drop: on the reported half of the retention set, zero_shot "
        "macro_accuracy dropped by 0.038 (at most 0.060 with 95 % confidence): the drop of 0.01 is not met",
    )
    unsure = row(dataset="general", difference=(-0.005, -0.02, 0.01, 0.5), n=400)
    assert result.unmet([unsure])[0].endswith("the drop of 0.01 is not shown to be met")
    few = row(dataset="general", difference=(-0.005, float("nan"), float("nan"), float("nan")), n=4)
    assert "too few groups for a bound" in result.unmet([few])[0]
    search = row(
        "image_to_text_r1", "general", difference=(-0.1, -0.15, -0.05, 0.001), n=400, probe="retrieval"
    )
    assert [text.split(" dropped")[0].split(", ")[1] for text in result.unmet([lost, search])] == [
        "zero_shot macro_accuracy",
        "retrieval image_to_text_r1",
    ]
    sure = row(dataset="general", difference=(0.02, 0.005, 0.035, 0.01), n=400)
    assert result.unmet([sure]) == result.unmet([row()]) == ()
    assert _result(0.0, [], 0.01, groups=500).unmet([lost]) == ()
    assert _result(1.0, [], None, groups=500).unmet([lost]) == ()


def _search(
    monkeypatch: pytest.MonkeyPatch, scores: Mapping[Alphas, float], alphas: list[float], **settings: Any
) -> _AlphaSearch:
    """A search in which a pair of α has the score of the table, and errors are 0."""
    path = SimpleNamespace(at=Alphas(9, 9))
    path.set_alphas = lambda at: setattr(path, "at", at)
    measured: list[Alphas] = []
    monkeypatch.setattr(
        weight_interpolation, "_measure_selection", lambda *_: measured.append(path.at) or path.at
    )
    monkeypatch.setattr(weight_interpolation, "_metric_of", lambda results, _: results)
    monkeypatch.setattr(weight_interpolation, "_paired_error", lambda *_: 0.0)
    monkeypatch.setattr(
        weight_interpolation, "_score", lambda alpha, at, *_: AlphaScore(alpha, scores.get(at, 0.0))
    )
    search: Any = _AlphaSearch(
        None,
        path,
        SimpleNamespace(seed=0),
        None,
        WeightInterpolation(alphas=alphas, **settings),  # type: ignore[arg-type]
    )
    search.measured = measured
    return search  # type: ignore[no-any-return]


def test_the_alpha_of_each_tower_is_chosen_beside_that_of_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {
        Alphas(0.5, 0.5): 0.6, Alphas(1.0, 1.0): 0.5,  # 0.5 for both
        Alphas(1.0, 0.5): 0.7,  # then 1 for the image tower
        Alphas(1.0, 1.0): 0.5,  # and the text tower stays at 0.5
    }  # fmt: skip
    search: Any = _search(monkeypatch, scores, [0.5, 1.0])
    alpha, tried = search.choose(lambda value: Alphas(value, value))
    assert (alpha, [score.alpha for score in tried]) == (0.5, [0.0, 0.5, 1.0])
    by_tower = search.choose_by_tower(alpha)
    assert {tower: chosen for tower, (chosen, _) in by_tower.items()} == {"image": 1.0, "text": 0.5}
    assert [score.score for score in by_tower["image"][1]] == [0.0, 0.6, 0.7]
    # Each pair once: base, two for both, one more for the image tower; (1, 1) was measured already.
    assert search.measured == [Alphas(0, 0), Alphas(0.5, 0.5), Alphas(1, 1), Alphas(1, 0.5)]
    facts = InterpolationResult(alpha, tried, None, "zero_shot accuracy", "share", 0, by_tower).facts()
    assert facts["by_tower"]["image"] == {"alpha": 1.0, "validation": {"0.0": 0.0, "0.5": 0.6, "1.0": 0.7}}
    assert "by_tower" not in InterpolationResult(alpha, tried, None, "zero_shot accuracy", "share").facts()


def test_a_tower_for_which_none_is_better_keeps_the_common_alpha(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: where only the common α is good, both towers have it."""
    search: Any = _search(monkeypatch, {Alphas(0.5, 0.5): 0.6}, [0.5, 1.0])
    by_tower = search.choose_by_tower(0.5)
    assert {tower: chosen for tower, (chosen, _) in by_tower.items()} == {"image": 0.5, "text": 0.5}
