"""Verdicts: which differences are called better or worse, and the rate of false positives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, ClassVar

import numpy as np
import pytest

from domainclip.data.cards import Prompts
from domainclip.data.interfaces import Encoder
from domainclip.errors import RecipeError
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.evaluate import evaluate_pair
from domainclip.evaluation.metrics.results import metric
from domainclip.evaluation.probes.calibration import Calibration
from domainclip.evaluation.probes.modality_gap import ModalityGap
from domainclip.evaluation.probes.set_difficulty import SetDifficulty
from domainclip.evaluation.probes.subgroups import Subgroups
from domainclip.evaluation.protocol import Protocol
from domainclip.evaluation.statistics import aggregates, estimates
from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import (
    BETTER,
    NO_VERDICT,
    SAME,
    WORSE,
    ComparisonRow,
    add_verdicts,
    underpowered_families,
)
from tests.evaluation.probes.array_encoder import ArrayEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import clusters
from tests.report.made_results import row

TRIALS = 25
AXES: dict[str, list[float]] = {"a cat": [1.0, 0.0], "a dog": [0.0, 1.0]}
Trial = Callable[[np.random.Generator], tuple[ArrayEncoder, ArrayEncoder, EvaluationSet]]


def image_vectors(cat: np.ndarray, scale: float) -> dict[str, list[float]]:
    """Unit vectors with these probabilities of cat: softmax(scale · cosine)."""
    difference = np.log(cat / (1 - cat)) / scale
    angles = np.pi / 4 - np.arcsin(difference / np.sqrt(2))
    return {f"{i:03d}": [float(np.cos(angle)), float(np.sin(angle))] for i, angle in enumerate(angles)}


def calibrated(rng: np.random.Generator) -> tuple[ArrayEncoder, ArrayEncoder, EvaluationSet]:
    """Two calibrated models on the same labels; the second is less confident."""
    cat = rng.random(150) < 0.5

    def model(low: float, high: float) -> ArrayEncoder:
        confidence = rng.uniform(low, high, 150)
        correct = rng.random(150) < confidence
        return ArrayEncoder(
            image_vectors(np.where(correct == cat, confidence, 1 - confidence), 20.0), AXES, 20.0
        )

    rows = [{"id": f"{i:03d}", "labels": ["cat" if label else "dog"]} for i, label in enumerate(cat)]
    data = evaluation_set(rows, {"cat": "a cat", "dog": "a dog"})
    return model(0.94, 0.99), model(0.5, 0.99), data


def fair(rng: np.random.Generator) -> tuple[ArrayEncoder, ArrayEncoder, EvaluationSet]:
    """Two models of equal accuracy in each of four clinics; the second is less accurate in all of them."""

    def model(share: float) -> ArrayEncoder:
        return ArrayEncoder(image_vectors(np.where(rng.random(200) < share, 0.9, 0.1), 20.0), AXES, 20.0)

    rows = [{"id": f"{i:03d}", "labels": ["cat"], "meta": {"site": "ABCD"[i % 4]}} for i in range(200)]
    return model(0.97), model(0.6), evaluation_set(rows, {"cat": "a cat", "dog": "a dog"})


@pytest.mark.parametrize(
    ("trial", "probe", "metric_name"),
    [(calibrated, Calibration(), "ece"), (fair, Subgroups(by=["site"]), "accuracy_gap")],
)
def test_noise_is_not_called_a_difference(trial: Trial, probe: Probe, metric_name: str) -> None:
    rng = np.random.default_rng(0)
    claims, biased = 0, 0
    for _ in range(TRIALS):
        base, adapted, data = trial(rng)
        evaluation = evaluate_pair(base, adapted, Protocol([data], {"probe": probe}, 200))
        row = next(row for row in evaluation.rows if row.metric == metric_name)
        assert row.difference is not None
        claims += row.verdict in (BETTER, WORSE)
        biased += row.difference.value > 0
    assert claims == 0
    assert biased > 0.85 * TRIALS  # and not half of the time, as without a bias


def test_descriptive_metrics_get_no_verdict() -> None:
    strong, data = clusters(n=40, noise=0.2)
    weak, _ = clusters(n=40, noise=0.9)
    probes: dict[str, Probe] = {"gap": ModalityGap(), "difficulty": SetDifficulty()}
    evaluation = evaluate_pair(strong, weak, Protocol([data], probes, 200))
    assert len(evaluation.rows) == 7
    assert {row.verdict for row in evaluation.rows} == {NO_VERDICT}
    assert any(row.difference is not None and row.difference.sign for row in evaluation.rows)
    assert evaluation.controls == []  # a control needs a metric with a verdict


def test_brier_and_log_loss_get_a_verdict_and_calibration_errors_none() -> None:
    base, adapted, data = calibrated(np.random.default_rng(0))
    evaluation = evaluate_pair(base, adapted, Protocol([data], {"calibration": Calibration()}, 200))
    verdicts = {row.metric: row.verdict for row in evaluation.rows}
    assert verdicts == {"ece": NO_VERDICT, "ece_adaptive": NO_VERDICT, "brier": WORSE, "nll": WORSE}


class _Fixed(Probe):
    """A probe that returns given results, by the scale of the model."""

    citation: ClassVar[str] = "none"
    version: ClassVar[int] = 1

    def __init__(self, results: dict[float, ProbeResult]) -> None:
        self.results = results

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        return self.results[encoder.scale]


def models() -> tuple[ArrayEncoder, ArrayEncoder]:
    vectors = {f"{i:03d}": [1.0, 0.0] for i in range(30)}
    return ArrayEncoder(vectors, AXES, 1.0), ArrayEncoder(vectors, AXES, 2.0)


def result_of(rows: Sequence[int], *names: str, **more: Any) -> ProbeResult:
    items = evaluation_set([{"id": f"{i:03d}"} for i in range(20)]).items
    scores = np.linspace(0, 1, len(rows))
    metrics = [metric(name, items, np.array(rows), scores) for name in names]
    return ProbeResult("made", "test", metrics, names[0], 1, **more)


def test_metrics_on_other_items_or_of_one_model_only_are_named_and_left_out() -> None:
    all_items = range(20)
    first = result_of(all_items, "all", "gone/1", "gone/2", "gone/3", "gone/4", "gone/5")
    first.metrics.extend(result_of(range(10), "some").metrics)
    other = result_of(all_items, "all", "new")
    other.metrics.extend(result_of(range(5, 15), "some").metrics)
    data = evaluation_set([{"id": f"{i:03d}"} for i in range(20)])
    evaluation = evaluate_pair(*models(), Protocol([data], {"made": _Fixed({1.0: first, 2.0: other})}, 50))
    assert [row.metric for row in evaluation.rows] == ["all"]
    assert evaluation.warnings == [
        "made on test: left out, since not every model has it: gone/1, gone/2, gone/3, gone/4, gone/5 and 1 more",
        "made on test: left out, since the models are measured on different items: some",
    ]


def test_two_variants_of_a_metric_are_not_compared() -> None:
    first = result_of(range(20), "ece", variant="by prompts")
    other = result_of(range(20), "ece", variant="by bias")
    probes: dict[str, Probe] = {
        "made": _Fixed({1.0: first, 2.0: other}),
        "also": _Fixed(dict.fromkeys((1.0, 2.0), first)),
    }
    data = evaluation_set([{"id": f"{i:03d}"} for i in range(20)])
    evaluation = evaluate_pair(*models(), Protocol([data], probes, 50))
    assert [row.metric for row in evaluation.rows] == ["ece"]
    reason = "not compared, since the models are measured differently: by prompts; by bias"
    assert evaluation.warnings == [f"made on test: {reason}"]
    assert [entry["details"].get("not_measured") for entry in evaluation.protocol] == [reason, None]


def test_calibration_with_and_without_a_bias_is_not_compared() -> None:
    rows = [{"id": f"{i:03d}", "labels": [["cat"], ["dog"], []][i % 3]} for i in range(30)]
    data = replace(
        evaluation_set(rows, {}, multi_label=True),
        classes={"cat": Prompts(positive=["a cat"], negative=["a dog"]), "dog": Prompts(positive=["a dog"])},
    )
    vectors = image_vectors(np.random.default_rng(0).uniform(0.1, 0.9, 30), 5.0)
    plain, biased = (ArrayEncoder(vectors, AXES, 5.0) for _ in range(2))
    biased.bias = -1.0
    for base, adapted in ((plain, biased), (biased, plain)):
        with pytest.raises(RecipeError) as error:
            evaluate_pair(base, adapted, Protocol([data], {"calibration": Calibration()}, 50))
        variants = [
            "positive against negative prompts" if model.bias is None else "sigmoid of cosine and bias"
            for model in (base, adapted)
        ]
        assert str(error.value) == (
            "nothing can be measured: calibration on test: not compared, since the models are "
            f"measured differently: {'; '.join(variants)}"
        )
    same = evaluate_pair(plain, plain, Protocol([data], {"calibration": Calibration()}, 50))
    assert [row.metric for row in same.rows] == ["ece", "ece_adaptive", "brier", "nll"]


def test_thirty_patients_can_show_that_one_of_fourteen_labels_changed() -> None:
    names = [f"label {i:02d}" for i in range(14)]
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (30, 14)).astype(float)
    base, adapted = rng.normal(size=(2, 30, 14))
    adapted[:, 3] = 9 * truth[:, 3] + rng.normal(size=30)
    base[:, 3] = -9 * truth[:, 3] + rng.normal(size=30) * 3

    def results(scores: np.ndarray) -> ProbeResult:
        items = evaluation_set([{"id": f"{i:03d}", "group": f"g{i}"} for i in range(30)]).items
        rows = np.arange(30)
        areas = [partial(aggregates.auroc, labels=truth[:, i]) for i in range(14)]
        metrics = [
            metric(f"auroc/{name}", items, rows, scores[:, i], areas[i]) for i, name in enumerate(names)
        ]
        return ProbeResult("made", "test", metrics, "", 1)

    data = evaluation_set([{"id": f"{i:03d}"} for i in range(30)])
    probe: Probe = _Fixed({1.0: results(base), 2.0: results(adapted)})
    for resamples, verdict in ((400, BETTER), (200, SAME)):
        evaluation = evaluate_pair(*models(), Protocol([data], {"made": probe}, resamples))
        assert [row.verdict for row in evaluation.rows if row.part == names[3]] == [verdict]
        assert sum(row.verdict != SAME for row in evaluation.rows) == (resamples == 400)
        warnings = [
            "made on test: auroc: 14 differences are compared together, of which none can be shown: 30 groups and "
            f"200 resamples give no p below {min(row.least_p for row in evaluation.rows):.2g}: raise evaluate.bootstrap_samples, "
            "or measure more groups"
        ]
        assert evaluation.warnings == ([] if resamples == 400 else warnings)
        assert evaluation.rows[0].least_p == 1 / (1 + resamples)


def test_a_curve_is_sorted_once_for_all_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregates, "_sorted", lru_cache(maxsize=64)(aggregates._sorted.__wrapped__))
    rng = np.random.default_rng(0)
    labels = (rng.random((4000, 3)) < 0.2).astype(float)
    macro = partial(aggregates.macro_auroc, labels=labels)
    base, adapted = rng.normal(size=(2, 4000, 3))
    estimates.compare_paired(macro, base, adapted, [str(i) for i in range(4000)], 500, 0)
    assert aggregates._sorted.cache_info().misses == 6
    assert aggregates._sorted.cache_info().hits > 20


def _row(p: float, judged: bool = True, part: str = "a") -> ComparisonRow:
    return row(metric=f"accuracy/{part}", difference=(0.1, 0.05, 0.15, p), comparable=judged, verdict=None)


def test_only_what_is_judged_is_counted_in_a_family() -> None:
    """Of four parts, one is descriptive and one has a failed control: Bonferroni's correction counts two."""
    rows = [
        _row(0.02, part="a"),
        _row(0.04, part="b"),
        _row(0.001, judged=False, part="c"),
        replace(_row(0.001, part="d"), control_fault="the control failed"),
    ]
    judged = add_verdicts(rows)
    assert [one.adjusted_p for one in judged] == [pytest.approx(0.04), pytest.approx(0.08), None, None]
    assert [one.verdict for one in judged] == [BETTER, SAME, NO_VERDICT, NO_VERDICT]
    assert {one.comparisons for one in judged} == {2}
    alone = add_verdicts([_row(0.04), replace(_row(0.001, part="b"), comparable=False)])
    assert (alone[0].verdict, alone[0].adjusted_p, alone[0].comparisons) == (BETTER, None, 1)


def test_a_family_in_which_nothing_changed_has_no_warning() -> None:
    rows = [
        replace(_row(1.0, part=name), difference=Estimate(0.0, -0.1, 0.1, 1.0), least_p=1.0) for name in "ab"
    ]
    assert underpowered_families([rows], 400) == []
    rows[0] = replace(rows[0], difference=Estimate(0.1, -0.1, 0.3, 0.5))
    assert len(underpowered_families([rows], 400)) == 1
