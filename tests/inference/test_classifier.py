"""Answers of a classifier equal what the probes measure on the same items, and are worked by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from domainclip.data.cards import Prompts
from domainclip.errors import RecipeError
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.class_decisions import Decisions
from domainclip.evaluation.probes.calibration import Calibration
from domainclip.evaluation.probes.zero_shot import ZeroShot
from domainclip.evaluation.run_classes import RunClasses
from domainclip.inference.classifier import Classifier, ClassQuestion, ask
from tests.evaluation.probes.array_encoder import ArrayEncoder, evaluation_set, items
from tests.evaluation.probes.synthetic_sets import metric_value

PROMPTS = {
    "cat": Prompts(positive=["a cat", "one cat"], negative=["no cat"]),
    "dog": Prompts(positive=["a dog"], negative=["no dog"]),
    "owl": Prompts(positive=["an owl"], negative=["no owl"]),
}
TEXTS = ["a cat", "one cat", "no cat", "a dog", "no dog", "an owl", "no owl"]


def noisy(rows: int, seed: int, bias: float | None = None) -> tuple[ArrayEncoder, list[dict[str, Any]]]:
    """Items whose images lie near the prompt of their class, with noise."""
    draw = np.random.default_rng(seed)
    texts = {text: draw.normal(size=8) for text in TEXTS}
    names, images, labelled = list(PROMPTS), {}, []
    for i in range(rows):
        name = names[draw.integers(3)]
        images[str(i)] = texts[PROMPTS[name].positive[0]] + 1.5 * draw.normal(size=8)
        labelled.append({"id": str(i), "labels": [name]})
    encoder = ArrayEncoder(images, texts)
    encoder.scale, encoder.bias = 7.0, bias
    return encoder, labelled


def measured(bias: float | None, multi_label: bool) -> tuple[ArrayEncoder, EvaluationSet]:
    """60 measured items and 60 of validation."""
    encoder, rows = noisy(120, seed=3, bias=bias)
    test = evaluation_set(rows[:60], PROMPTS, multi_label=multi_label)
    return encoder, replace(test, validation=items(rows[60:]))


def answered(encoder: ArrayEncoder, data: EvaluationSet, decisions: Decisions | None = None) -> Classifier:
    return Classifier(encoder, ClassQuestion(dict(data.classes), data.card.multi_label, decisions))


def test_the_accuracy_of_the_answers_is_that_of_the_probe() -> None:
    encoder, data = measured(None, multi_label=False)
    answers = answered(encoder, data).classify(encoder.images(data.items))
    truth = [labels[0] for labels in data.items["labels"]]
    accuracy = np.mean([one.label == name for one, name in zip(answers, truth, strict=True)])
    assert accuracy == pytest.approx(metric_value(ZeroShot()(encoder, data), "accuracy"))
    assert 0.4 < accuracy < 1


def test_calibrated_probabilities_have_the_log_loss_of_the_probe() -> None:
    encoder, data = measured(None, multi_label=False)
    probe = Calibration()(encoder, data)
    assert probe.details["temperature"] != 1.0
    classifier = answered(encoder, data, Decisions(temperature=probe.details["temperature"]))
    answers = classifier.classify(encoder.images(data.items))
    truth = [labels[0] for labels in data.items["labels"]]
    logs = [-np.log(one.probabilities[name]) for one, name in zip(answers, truth, strict=True)]
    assert np.mean(logs) == pytest.approx(metric_value(probe, "nll_fitted"), abs=1e-9)
    assert classifier.is_calibrated


@pytest.mark.parametrize("bias", [None, -1.0])
def test_findings_have_the_sensitivity_and_the_log_loss_of_the_probes(bias: float | None) -> None:
    encoder, data = measured(bias, multi_label=True)
    zero_shot, calibration = ZeroShot()(encoder, data), Calibration()(encoder, data)
    decisions = Decisions(
        thresholds=zero_shot.details["thresholds"], temperature=calibration.details["temperature"]
    )
    findings = answered(encoder, data, decisions).find(encoder.images(data.items))
    holds = [set(labels) for labels in data.items["labels"]]
    for name in PROMPTS:
        among = [found[name].present for found, labels in zip(findings, holds, strict=True) if name in labels]
        assert np.mean(among) == pytest.approx(metric_value(zero_shot, f"sensitivity/{name}"))
    logs = []
    for found, labels in zip(findings, holds, strict=True):
        probabilities = {name: float(one.probability or 0) for name, one in found.items()}
        logs += [-np.log(p if name in labels else 1 - p) for name, p in probabilities.items()]
    assert np.mean(logs) == pytest.approx(metric_value(calibration, "nll_fitted"), abs=1e-9)


def test_a_threshold_as_a_probability_separates_the_same_images() -> None:
    encoder, data = measured(None, multi_label=True)
    decisions = Decisions(thresholds={"cat": 0.7}, temperature=2.0)
    findings = [found["cat"] for found in answered(encoder, data, decisions).find(encoder.images(data.items))]
    for one in findings:
        assert one.threshold_probability == pytest.approx(1 / (1 + np.exp(-0.35)))
    assert {one.present for one in findings} == {True, False}
    for one in findings:
        assert one.present == (float(one.probability or 0) >= float(one.threshold_probability or 0))


def test_what_was_not_chosen_or_cannot_be_is_none() -> None:
    encoder, data = measured(None, multi_label=True)
    classes = {"cat": Prompts(positive=["a cat"])}  # a softmax model has no probability of one class alone
    found = Classifier(encoder, ClassQuestion(classes, True)).find(encoder.images(data.items))[0]["cat"]
    assert (found.probability, found.threshold, found.present) == (None, None, None)
    assert found.score == pytest.approx(
        7 * float(encoder.images(data.items)[0] @ encoder.texts(["a cat"])[0]), abs=1e-4
    )


RUN = RunClasses(
    corpus="c",
    classes={name: Prompts(positive=[f"an x-ray of {name}"]) for name in ("cat", "dog", "owl")},
    templates=["an x-ray of {}"],
    decisions=Decisions(thresholds={"cat": 1.0}, temperature=2.0),
)


def test_the_classes_of_the_run_are_the_default() -> None:
    assert ask(RUN) == ClassQuestion(RUN.classes, False, RUN.decisions)


def test_some_classes_of_the_run_keep_their_prompts_but_no_temperature_of_all() -> None:
    named = {name: Prompts(positive=[name]) for name in ("owl", "cat")}
    question = ask(RUN, named)
    assert list(question.classes) == ["owl", "cat"]
    assert question.classes["owl"] == RUN.classes["owl"]
    assert question.decisions == Decisions(thresholds={"cat": 1.0})
    several = RUN.model_copy(update={"multi_label": True})  # separate questions do not depend on each other
    assert ask(several, named).decisions == RUN.decisions


def test_new_classes_get_the_templates_of_the_run_and_no_decisions() -> None:
    named = {name: Prompts(positive=[name]) for name in ("fox", "cat")}
    question = ask(RUN, named)
    assert question.classes["fox"].positive == ["an x-ray of fox"]
    assert question.decisions is None
    assert ask(RUN, named, ["a {}"]).classes["cat"].positive == ["a cat"]
    assert ask(None, named).classes["fox"].positive == ["a photo of a fox"]
    assert ask(RUN, None, ["a {}"]).decisions is None


def test_classes_with_negative_prompts_are_separate_questions() -> None:
    assert ask(None, PROMPTS).multi_label
    assert not ask(None, {**PROMPTS, "fox": Prompts(positive=["a fox"])}).multi_label


@pytest.mark.parametrize(
    ("recorded", "named", "message"),
    [
        (None, None, "--classes: the model records no classes: name them"),
        (RUN, {"cat": Prompts(positive=["cat"])}, "classes: 1 given; name two or more to choose among"),
    ],
)
def test_a_question_needs_classes(recorded: Any, named: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        ask(recorded, named)
