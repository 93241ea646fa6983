"""Controls: chance where captions repeat, and no verdict where a control knows what it was not given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from domainclip.evaluation import evaluate
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.controls import NullControl, control_fault
from domainclip.evaluation.evaluate import Evaluation, evaluate_pair
from domainclip.evaluation.metrics.ranking import commonest_first, rank_answers
from domainclip.evaluation.metrics.retrieval_gallery import build_galleries
from domainclip.evaluation.probes.retrieval import Retrieval
from domainclip.evaluation.protocol import Protocol
from domainclip.evaluation.verdicts import BETTER, NO_VERDICT, SAME, WORSE
from tests.evaluation.probes.array_encoder import ArrayEncoder, evaluation_set


def _set(texts: list[str]) -> EvaluationSet:
    return evaluation_set([{"id": f"{i:02d}", "texts": [text]} for i, text in enumerate(texts)])


def _noisy(texts: list[str], targets: list[str], noise: float, seed: int) -> ArrayEncoder:
    """Each image near the text that is its target."""
    rng = np.random.default_rng(seed)
    distinct = sorted(set(texts))
    axes = dict(zip(distinct, np.eye(len(distinct)), strict=True))
    images = {
        f"{i:02d}": (axes[target] + noise * rng.normal(size=len(distinct))).tolist()
        for i, target in enumerate(targets)
    }
    return ArrayEncoder(images, {text: axis.tolist() for text, axis in axes.items()})


def _donors(data: EvaluationSet) -> list[str]:
    """The caption that the control gives to each image."""
    (gallery,) = build_galleries(data)
    return [gallery.texts[row.indices[0]] for row in gallery.shuffled(0)]


def _evaluate(base: ArrayEncoder, adapted: ArrayEncoder | None, data: EvaluationSet) -> Evaluation:
    return evaluate_pair(base, adapted, Protocol([data], {"retrieval": Retrieval()}, 300))


@pytest.mark.parametrize("seed", range(8))
def test_chance_is_the_ranking_by_frequency(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((9, 6)) < 0.3
    truth[np.arange(9), rng.integers(0, 6, 9)] = True
    truth = np.repeat(truth, rng.integers(1, 4, 9), axis=0)
    frequency = truth.sum(axis=0) / 100
    # The same by the ordinary way: all queries are equal, and an answer's score is its frequency.
    (expected,) = rank_answers(np.ones((len(truth), 1)), frequency[:, None], [csr_matrix(truth)])
    found = commonest_first(csr_matrix(truth))
    for name in ("above", "tied", "relevant_tied", "relevant"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name))
    assert found.full is not None
    assert expected.full is not None
    for name in ("average_precision", "r_precision", "ndcg"):
        assert getattr(found.full, name) == pytest.approx(getattr(expected.full, name))
    distinct, counts = np.unique(truth, axis=0, return_counts=True)
    by_text = commonest_first(csr_matrix(distinct), counts)
    assert np.repeat(by_text.hits_at(1), counts).sum() == pytest.approx(found.hits_at(1).sum())


def test_repeated_captions_are_no_fault_and_have_the_chance_of_the_commonest() -> None:
    texts = ["no finding"] * 18 + [f"finding {i}" for i in range(42)]
    data = _set(texts)
    base = _noisy(texts, ["no finding"] * 60, 0.0, 0)  # says the same of every image
    evaluation = _evaluate(base, _noisy(texts, texts, 0.2, 1), data)
    rows = {row.metric: row for row in evaluation.rows}
    control = rows["image_to_text_r1_shuffled"]
    assert control.chance == pytest.approx(18 / 60)
    assert control.base.value == pytest.approx(18 / 60)  # under the chance of a random answer, 1/43, a fault
    assert (rows["image_to_text_r1"].chance, rows["image_to_text_r1"].base.value) == (18 / 60, 18 / 60)
    assert (rows["image_to_text_r1"].verdict, control.verdict) == (BETTER, NO_VERDICT)
    assert [warning for warning in evaluation.warnings if "control" in warning] == []


@pytest.mark.parametrize("faulty", ["base", "adapted"])
def test_nothing_is_judged_beside_a_control_that_knows_too_much(faulty: str) -> None:
    texts = [f"thing {i}" for i in range(40)]
    data = _set(texts)
    cheat, honest = _noisy(texts, _donors(data), 0.05, 0), _noisy(texts, texts, 0.05, 1)
    base, adapted = (cheat, honest) if faulty == "base" else (honest, cheat)
    evaluation = _evaluate(base, adapted, data)
    assert {row.verdict for row in evaluation.rows} == {NO_VERDICT}
    assert abs(evaluation.rows[0].difference.value) > 0.9  # type: ignore[union-attr]
    model = {"base": "the base", "adapted": "the adapted model"}[faulty]
    (warning,) = [warning for warning in evaluation.warnings if "control" in warning]
    assert warning.startswith(
        f"retrieval on test: not judged, since the control image_to_text_r1_shuffled of {model} is 1.000 "
        "(95 % interval "
    )
    assert warning.endswith("), where chance is 0.025")
    alone = _evaluate(cheat, None, data)
    assert all(row.control_fault for row in alone.rows)


def test_a_control_that_knows_a_third_of_the_answers_is_a_fault() -> None:
    texts = [f"thing {i}" for i in range(40)]
    data = _set(texts)
    donors = _donors(data)
    targets = [donors[i] if i % 3 == 0 else text for i, text in enumerate(texts)]
    evaluation = _evaluate(_noisy(texts, targets, 0.05, 0), _noisy(texts, texts, 0.05, 1), data)
    assert all(row.control_fault for row in evaluation.rows)


def test_honest_models_keep_their_verdicts() -> None:
    texts = [f"thing {i}" for i in range(40)]
    evaluation = _evaluate(_noisy(texts, texts, 2.0, 0), _noisy(texts, texts, 0.05, 1), _set(texts))
    assert {row.metric: row.verdict for row in evaluation.rows}["image_to_text_r1"] == BETTER
    assert all(not row.control_fault for row in evaluation.rows)


def test_a_random_model_does_not_fail_its_control() -> None:
    """At 95 % two or three of these hundred do, and a report has ten controls."""
    faults = 0
    for seed in range(100):
        texts = [f"thing {i % 20}" for i in range(40)]
        random_targets = np.random.default_rng(seed).permutation(texts).tolist()
        result = Retrieval(seed=seed)(_noisy(texts, random_targets, 1.0, seed), _set(texts))
        faults += bool(control_fault({"a model": result}, 200, 0))
    assert faults == 0


def test_a_null_control_that_claims_too_often_takes_the_verdict_of_its_metric(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(pair: Any, row: Any, seed: int) -> NullControl:
        return _null(probe=row.probe, dataset=row.dataset, metric=row.metric, share=0.4)

    monkeypatch.setattr(evaluate, "null_control", failing)
    texts = [f"thing {i}" for i in range(40)]
    found = _evaluate(_noisy(texts, texts, 2.0, 0), _noisy(texts, texts, 0.05, 1), _set(texts))
    verdicts = {row.metric: row.verdict for row in found.rows}
    assert verdicts["image_to_text_r1"] == NO_VERDICT
    assert verdicts["image_to_text_r5"] == BETTER
    (warning,) = [warning for warning in found.warnings if "swapped" in warning]
    assert warning.startswith(
        "retrieval on test: not judged, since with the models swapped at random, 40 of 100"
    )


def _null(**changes: Any) -> NullControl:
    facts = {"probe": "p", "dataset": "d", "metric": "m", "itself": SAME, "share": 0.05, "swaps": 100}
    return NullControl(**{**facts, **changes})


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, ""),
        ({"share": 0.13}, ""),  # the 99.9 % quantile of 100 swaps at one in twenty
        ({"share": 0.14}, "with the models swapped at random, 14 of 100 comparisons find a difference"),
        ({"share": 0.25, "swaps": 20}, ""),
        ({"share": 0.3, "swaps": 20}, "with the models swapped at random, 6 of 20 comparisons"),
        ({"itself": WORSE}, "the procedure calls the base worse than itself"),
    ],
)
def test_a_null_control_that_claims_too_often(changes: dict[str, Any], fault: str) -> None:
    assert _null(**changes).fault.startswith(fault)
    assert bool(_null(**changes).fault) == bool(fault)
