"""What may be called better or worse, and how often that is false where nothing differs."""

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
from domainclip.evaluation.statistics import aggregates, closed_form, estimates
from domainclip.evaluation.verdicts import BETTER, NO_VERDICT, SAME, WORSE
from tests.evaluation.probes.array_encoder import ArrayEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import clusters

TRIALS = 25
AXES: dict[str, list[float]] = {"a cat": [1.0, 0.0], "a dog": [0.0, 1.0]}
Trial = Callable[[np.random.Generator], tuple[ArrayEncoder, ArrayEncoder, EvaluationSet]]


def pictures(yes: np.ndarray, scale: float) -> dict[str, list[float]]:
    """Unit vectors for which softmax(scale · cosine) says cat with these probabilities."""
    apart = np.log(yes / (1 - yes)) / scale
    angle = np.pi / 4 - np.arcsin(apart / np.sqrt(2))
    return {f"{i:03d}": [float(np.cos(one)), float(np.sin(one))] for i, one in enumerate(angle)}


def calibrated(rng: np.random.Generator) -> tuple[ArrayEncoder, ArrayEncoder, EvaluationSet]:
    """Two models that are right as often as they say; the second only says less. One truth for both."""
    cat = rng.random(150) < 0.5

    def says(low: float, high: float) -> ArrayEncoder:
        sure = rng.uniform(low, high, 150)
        right = rng.random(150) < sure
        return ArrayEncoder(pictures(np.where(right == cat, sure, 1 - sure), 20.0), AXES, 20.0)

    rows = [{"id": f"{i:03d}", "labels": ["cat" if one else "dog"]} for i, one in enumerate(cat)]
    data = evaluation_set(rows, {"cat": "a cat", "dog": "a dog"})
    return says(0.94, 0.99), says(0.5, 0.99), data


def fair(rng: np.random.Generator) -> tuple[ArrayEncoder, ArrayEncoder, EvaluationSet]:
    """Two models that work equally well in each of four clinics; the second less well in all of them."""

    def right(share: float) -> ArrayEncoder:
        return ArrayEncoder(pictures(np.where(rng.random(200) < share, 0.9, 0.1), 20.0), AXES, 20.0)

    rows = [{"id": f"{i:03d}", "labels": ["cat"], "meta": {"site": "ABCD"[i % 4]}} for i in range(200)]
    return right(0.97), right(0.6), evaluation_set(rows, {"cat": "a cat", "dog": "a dog"})


@pytest.mark.parametrize(
    ("trial", "probe", "figure"),
    [(calibrated, Calibration(), "ece"), (fair, Subgroups(by=["site"]), "accuracy_gap")],
)
def test_noise_is_not_called_a_difference(trial: Trial, probe: Probe, figure: str) -> None:
    rng = np.random.default_rng(0)
    claims, biased = 0, 0
    for _ in range(TRIALS):
        base, adapted, data = trial(rng)
        found = evaluate_pair(base, adapted, Protocol([data], {"probe": probe}, 200))
        row = next(row for row in found.rows if row.metric == figure)
        assert row.difference is not None
        claims += row.verdict in (BETTER, WORSE)
        biased += row.difference.sign > 0
    assert claims == 0
    assert biased > 0.2 * TRIALS  # the interval alone would have claimed it: the test can fail


def test_what_only_describes_gets_no_verdict() -> None:
    strong, data = clusters(n=40, noise=0.2)
    weak, _ = clusters(n=40, noise=0.9)
    probes: dict[str, Probe] = {"gap": ModalityGap(), "difficulty": SetDifficulty()}
    found = evaluate_pair(strong, weak, Protocol([data], probes, 200))
    assert len(found.rows) == 7
    assert {row.verdict for row in found.rows} == {NO_VERDICT}
    assert any(row.difference is not None and row.difference.sign for row in found.rows)
    assert found.controls == []  # nothing that could be claimed, nothing to control


def test_brier_and_log_loss_are_judged_beside_the_error_that_is_not() -> None:
    base, adapted, data = calibrated(np.random.default_rng(0))
    found = evaluate_pair(base, adapted, Protocol([data], {"calibration": Calibration()}, 200))
    verdicts = {row.metric: row.verdict for row in found.rows}
    assert verdicts == {"ece": NO_VERDICT, "ece_adaptive": NO_VERDICT, "brier": WORSE, "nll": WORSE}


class _Fixed(Probe):
    """A probe that finds what it is told, by the scale of the model."""

    citation: ClassVar[str] = "made by hand"
    version: ClassVar[int] = 1

    def __init__(self, found: dict[float, ProbeResult]) -> None:
        self.found = found

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        return self.found[encoder.scale]


def models() -> tuple[ArrayEncoder, ArrayEncoder]:
    vectors = {f"{i:03d}": [1.0, 0.0] for i in range(30)}
    return ArrayEncoder(vectors, AXES, 1.0), ArrayEncoder(vectors, AXES, 2.0)


def figures_of(rows: Sequence[int], *names: str, **more: Any) -> ProbeResult:
    items = evaluation_set([{"id": f"{i:03d}"} for i in range(20)]).items
    scores = np.linspace(0, 1, len(rows))
    metrics = [metric(name, items, np.array(rows), scores) for name in names]
    return ProbeResult("made", "test", metrics, names[0], 1, **more)


def test_figures_on_other_items_or_of_one_model_alone_are_named_and_left_out() -> None:
    everyone = range(20)
    one = figures_of(everyone, "all", "gone/1", "gone/2", "gone/3", "gone/4", "gone/5")
    one.metrics.extend(figures_of(range(10), "some").metrics)
    other = figures_of(everyone, "all", "new")
    other.metrics.extend(figures_of(range(5, 15), "some").metrics)
    data = evaluation_set([{"id": f"{i:03d}"} for i in range(20)])
    found = evaluate_pair(*models(), Protocol([data], {"made": _Fixed({1.0: one, 2.0: other})}, 50))
    assert [row.metric for row in found.rows] == ["all"]
    assert found.warnings == [
        "made on test: left out, since not every model has it: gone/1, gone/2, gone/3, gone/4, gone/5 and 1 more",
        "made on test: left out, since the models are measured on different items: some",
    ]


def test_figures_of_two_meanings_are_not_measured() -> None:
    one = figures_of(range(20), "ece", variant="by prompts")
    other = figures_of(range(20), "ece", variant="by bias")
    probes: dict[str, Probe] = {
        "made": _Fixed({1.0: one, 2.0: other}),
        "also": _Fixed(dict.fromkeys((1.0, 2.0), one)),
    }
    data = evaluation_set([{"id": f"{i:03d}"} for i in range(20)])
    found = evaluate_pair(*models(), Protocol([data], probes, 50))
    assert [row.metric for row in found.rows] == ["ece"]
    said = "not compared, since the models are measured differently: by prompts; by bias"
    assert found.warnings == [f"made on test: {said}"]
    assert [entry["details"].get("not_measured") for entry in found.protocol] == [said, None]


def test_calibration_with_and_without_a_bias_is_not_compared() -> None:
    rows = [{"id": f"{i:03d}", "labels": [["cat"], ["dog"], []][i % 3]} for i in range(30)]
    data = replace(
        evaluation_set(rows, {}, multi_label=True),
        classes={"cat": Prompts(positive=["a cat"], negative=["a dog"]), "dog": Prompts(positive=["a dog"])},
    )
    vectors = pictures(np.random.default_rng(0).uniform(0.1, 0.9, 30), 5.0)
    plain, biased = (ArrayEncoder(vectors, AXES, 5.0) for _ in range(2))
    biased.bias = -1.0
    for base, adapted in ((plain, biased), (biased, plain)):
        with pytest.raises(RecipeError) as caught:
            evaluate_pair(base, adapted, Protocol([data], {"calibration": Calibration()}, 50))
        ways = [
            "positive against negative prompts" if one.bias is None else "sigmoid of cosine and bias"
            for one in (base, adapted)
        ]
        assert str(caught.value) == (
            "nothing can be measured: calibration on test: not compared, since the models are "
            f"measured differently: {'; '.join(ways)}"
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

    def results(scores: np.ndarray, groups: int) -> ProbeResult:
        items = evaluation_set([{"id": f"{i:03d}", "group": f"g{i % groups}"} for i in range(30)]).items
        rows = np.arange(30)
        areas = [partial(aggregates.auroc, labels=truth[:, i]) for i in range(14)]
        each = [metric(f"auroc/{name}", items, rows, scores[:, i], areas[i]) for i, name in enumerate(names)]
        return ProbeResult("made", "test", each, "", 1)

    data = evaluation_set([{"id": f"{i:03d}"} for i in range(30)])
    for groups, verdict in ((30, BETTER), (29, SAME)):
        probe: Probe = _Fixed({1.0: results(base, groups), 2.0: results(adapted, groups)})
        found = evaluate_pair(*models(), Protocol([data], {"made": probe}, 400))
        assert [row.verdict for row in found.rows if row.part == names[3]] == [verdict]
        assert sum(row.verdict != SAME for row in found.rows) == (groups == 30)
        least = found.rows[0].least_p
        said = [
            "made on test: auroc: 14 differences are compared together, of which none can be shown: 29 groups and "
            f"400 resamples give no p below {min(row.least_p for row in found.rows):.2g}: raise evaluate.bootstrap_samples, "
            "or measure more groups"
        ]
        assert found.warnings == ([] if groups == 30 else said)
        assert (least < 1e-6) == (groups == 30)


def test_p_of_an_auroc_is_delongs_where_every_group_is_one_item() -> None:
    rng = np.random.default_rng(0)
    labels = (np.arange(60) % 3 == 0).astype(float)
    labels[7] = np.nan
    base, adapted = rng.normal(size=60) + labels, rng.normal(size=60) + 2 * labels
    base[7], adapted[7] = 0.0, 1.0
    area = partial(aggregates.auroc, labels=labels)
    known = ~np.isnan(labels)
    groups = [f"{i}" for i in range(60)]
    found = estimates.compare_paired(area, base, adapted, groups, 400, 0).difference
    assert found is not None
    assert found.p == pytest.approx(closed_form.delong_test(base[known], adapted[known], labels[known])[2])
    # Tied through and through against never wrong: no spread at all, so the bootstrap's p stands.
    none = estimates.compare_paired(area, np.zeros(60), np.nan_to_num(labels), groups, 400, 0).difference
    assert none is not None
    assert none.value == 0.5
    assert none.p is not None
    assert none.p < 0.05


def test_a_curve_is_sorted_once_for_all_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregates, "_sorted", lru_cache(maxsize=64)(aggregates._sorted.__wrapped__))
    rng = np.random.default_rng(0)
    labels = (rng.random((4000, 3)) < 0.2).astype(float)
    macro = partial(aggregates.macro_auroc, labels=labels)
    base, adapted = rng.normal(size=(2, 4000, 3))
    estimates.compare_paired(macro, base, adapted, [str(i) for i in range(4000)], 500, 0)
    assert aggregates._sorted.cache_info().misses == 6
    assert aggregates._sorted.cache_info().hits > 20
