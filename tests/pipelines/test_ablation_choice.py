"""The variant that an ablation chooses, by hand: gain, retention, and what is equally good."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from domainclip.config.recipe import EvaluationConfig
from domainclip.evaluation.base import Metric, ProbeResult
from domainclip.evaluation.statistics.aggregates import mean
from domainclip.pipelines.ablation.choice import choose
from domainclip.report.ablation_results import AblationRow, Choice

GROUPS = [f"g{i}" for i in range(20)]
SPREAD = np.tile([-0.1, 0.1], 10)  # of the items, the same for all models


def _scores(value: float, wobble: float = 0.0) -> np.ndarray:
    """Items around a value; with `wobble`, half of them are better by so much, and half worse."""
    return value + SPREAD + wobble * np.tile([1.0, 1.0, -1.0, -1.0], 5)


def _chosen(
    variants: dict[str, dict[int, np.ndarray]],
    general: dict[str, float] | None = None,
    limit: float | None = 0.05,
    base: float = 0.5,
    lower_is_better: bool = False,
    metrics: tuple[str, ...] = (),
    on_general: str = "",
) -> Choice | None:
    """The choice among variants with these scores by seed, and this metric on the retention set (base: 0.4)."""
    name = "mean_rank" if lower_is_better else "accuracy"

    def metric(scores: np.ndarray) -> Metric:
        return Metric(name, GROUPS, GROUPS, scores, mean, higher_is_better=not lower_is_better)

    runs = {
        (variant, seed): {
            ("zero_shot", "validation"): ProbeResult("zero_shot", "validation", [metric(scores)], name, 1)
        }
        for variant, seeds in variants.items()
        for seed, scores in seeds.items()
    }
    means = {variant: float(np.mean(list(seeds.values()))) for variant, seeds in variants.items()}
    rows = [_row(name, "validation", base, means, not lower_is_better)]
    if general is not None:
        rows.append(_row(on_general or name, "general", 0.4, general, not lower_is_better))
    settings = EvaluationConfig(bootstrap_samples=400, split="validation")
    plan = SimpleNamespace(variants=variants, metrics=list(metrics), max_retention_drop=limit)
    baseline: Any = SimpleNamespace(
        ablation=SimpleNamespace(plan=plan, measured=SimpleNamespace(evaluate=settings))
    )
    return choose(baseline, runs, rows)


def _row(metric: str, dataset: str, base: float, means: dict[str, float], higher: bool) -> AblationRow:
    trials: Any = {variant: SimpleNamespace(mean=value) for variant, value in means.items()}
    known: Any = SimpleNamespace(value=base)
    return AblationRow(
        probe="zero_shot",
        dataset=dataset,
        metric=metric,
        higher_is_better=higher,
        unit="share",
        chance=None,
        primary=True,
        n=20,
        groups=20,
        base=known,
        trials=trials,
    )


def test_the_best_wins_where_the_data_can_tell() -> None:
    found = _chosen({"simple": {0: _scores(0.6)}, "best": {0: _scores(0.7)}, "last": {0: _scores(0.65)}})
    assert found is not None
    assert (found.variant, found.best, found.metric) == ("best", "best", "zero_shot/validation/accuracy")
    assert [c.gain for c in found.candidates] == pytest.approx([0.1, 0.2, 0.15])


def test_of_equally_good_variants_the_first_in_the_plan_wins() -> None:
    """Differences from the best: 0.01 ± 0.1 over 20 groups, so the standard error is 0.1 / √19 = 0.023."""
    simple, best = {0: _scores(0.69, wobble=0.1)}, {0: _scores(0.7)}
    found = _chosen({"simple": simple, "best": best})
    assert found is not None
    assert (found.variant, found.best) == ("simple", "best")
    first = _chosen({"best": best, "simple": simple})
    assert first is not None
    assert first.variant == "best"
    # Negative control: the same gap without the wobble is far more than the paired error.
    sure = _chosen({"simple": {0: _scores(0.69)}, "best": best})
    assert sure is not None
    assert sure.variant == "best"


def test_seeds_that_disagree_make_variants_equally_good() -> None:
    simple = {0: _scores(0.62), 1: _scores(0.72)}
    found = _chosen({"simple": simple, "best": {0: _scores(0.72), 1: _scores(0.64)}})
    assert found is not None
    assert (found.variant, found.best) == ("simple", "best")


def test_what_forgets_too_much_is_not_chosen() -> None:
    variants = {"keeps": {0: _scores(0.6)}, "forgets": {0: _scores(0.9)}}
    general = {"keeps": 0.36, "forgets": 0.34}
    found = _chosen(variants, general)
    assert found is not None
    assert found.variant == "keeps"
    assert [c.retention_drop for c in found.candidates] == pytest.approx([0.04, 0.06])
    assert [c.allowed for c in found.candidates] == [True, False]
    for limit in (0.06, None):  # exactly at the limit, and without one
        other = _chosen(variants, general, limit)
        assert other is not None
        assert other.variant == "forgets"
    another = _chosen(variants, general, on_general="image_to_text_r1")  # only that is measured there
    assert another is not None
    assert (another.variant, another.retention_metric) == ("keeps", "zero_shot/general/image_to_text_r1")
    alone = _chosen(variants)  # no retention set: nothing to hold against anyone
    assert alone is not None
    assert (alone.variant, alone.max_retention_drop) == ("forgets", None)


def test_the_base_stays_where_nothing_is_better() -> None:
    worse = _chosen({"a": {0: _scores(0.5)}, "b": {0: _scores(0.4)}})
    assert worse is not None
    assert (worse.variant, worse.best) == (None, None)
    # What is within one standard error of the best, but no better than the base, is no candidate either.
    found = _chosen({"a": {0: _scores(0.499, wobble=0.5)}, "b": {0: _scores(0.51)}})
    assert found is not None
    assert found.variant == "b"
    assert _chosen({"a": {0: _scores(0.6)}}, metrics=("zero_shot/validation/other",)) is not None
    assert _chosen({"a": {0: _scores(0.6)}}, base=float("nan")) is None


def test_lower_ranks_are_better() -> None:
    variants = {"a": {0: _scores(3.0)}, "b": {0: _scores(2.0)}}
    found = _chosen(variants, base=4.0, lower_is_better=True)
    assert found is not None
    assert found.variant == "b"
    assert [c.gain for c in found.candidates] == pytest.approx([1.0, 2.0])
    assert all(c.gain < 0 for c in (_chosen(variants, base=1.0, lower_is_better=True) or found).candidates)
