"""What classification leaves out or cannot tell apart stands in the warnings, counted and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domainclip.data.cards import Prompts
from domainclip.errors import ModelError
from domainclip.evaluation import run_classes
from domainclip.evaluation.base import EvaluationSet, ProbeResult
from domainclip.evaluation.class_warnings import answers_without_items, class_warnings
from domainclip.evaluation.diagnostics import ConfusionMatrix, Diagnostics
from domainclip.evaluation.evaluate import compare_models
from domainclip.evaluation.probe_runs import _warnings_by_model
from domainclip.evaluation.probes.retrieval import Retrieval
from domainclip.evaluation.probes.zero_shot import ZeroShot
from domainclip.evaluation.run_classes import RunClasses, default_classes
from tests.evaluation.probes.array_encoder import CollapsedEncoder, evaluation_set

CATS = {"cat": "a cat", "dog": "a dog"}


def _set(labels: list[list[str]], classes: dict[str, Any] | None = None, **keys: Any) -> EvaluationSet:
    rows = [{"id": f"{i:02d}", "labels": names, "texts": [f"text {i}"]} for i, names in enumerate(labels)]
    data = evaluation_set(rows, classes or CATS, **keys)
    open_card = data.card.model_copy(
        update={"privacy": data.card.privacy.model_copy(update={"identifiers": "none"})}
    )
    return EvaluationSet(data.name, data.items, open_card, data.classes, fingerprint="this")


def test_a_typing_error_in_a_class() -> None:
    data = _set([["cat"], ["dog"]] * 10, {"cat": "a cat", "dogg": "a dogg"})
    assert class_warnings(data) == [
        "test: 10 of 20 items are left out of classification: 10 whose label is not among the classes",
        "test: all items that count are of one class: accuracy is how often that class wins, and does not show "
        "whether classes are distinguished",
        'test: no item has 1 of the 2 classes: "dogg" (did you mean "dog"?)',
    ]
    private = EvaluationSet(data.name, data.items, evaluation_set([{"id": "0"}], CATS).card, data.classes)
    assert class_warnings(private)[-1] == 'test: no item has 1 of the 2 classes: "dogg"'


def test_every_reason_is_counted() -> None:
    data = _set([["cat"], ["dog"], [], ["cat", "dog"], ["bird"], ["cat", "bird"]])
    assert class_warnings(data) == [
        "test: 3 of 6 items are left out of classification: 1 whose label is not among the classes, 1 without a "
        "label, 1 with several classes"
    ]
    assert class_warnings(_set([["cat"], ["dog"]])) == []
    assert class_warnings(_set([[], []])) == []  # captions only: nothing is classified


def test_several_classes_an_item() -> None:
    data = _set([["cat", "bird"], ["dog"], []], {**CATS, "catt": "a catt"}, multi_label=True)
    assert class_warnings(data) == [
        "test: 1 of 3 items have labels that are not among the 3 classes, and count as negative for these",
        'test: no item has 1 of the 3 classes: "catt"',
    ]


@pytest.mark.parametrize("multi_label", [False, True])
def test_classes_that_share_a_name_or_prompts(multi_label: bool) -> None:
    classes = {"Benign": "a Benign", "benign": "a benign", "cat": "a pet", "dog": "A  pet", "owl": "an owl"}
    data = _set([[name] for name in classes], classes, multi_label=multi_label)
    same_name, same_prompts = class_warnings(data)
    assert same_name.startswith('test: classes "Benign", "benign" differ only in capitals')
    assert same_prompts.startswith('test: classes "cat", "dog" have the same prompts')


def test_only_probes_of_classes_report_them() -> None:
    data = _set([["cat"], ["bird"]])
    (found,) = compare_models([CollapsedEncoder()], [data], {"zero_shot": ZeroShot()}, resamples=20)
    assert any("left out of classification" in warning for warning in found.warnings)
    (found,) = compare_models([CollapsedEncoder()], [data], {"retrieval": Retrieval()}, resamples=20)
    assert not any("classification" in warning for warning in found.warnings)


# --- the classes of a run on another corpus -------------------------------------------------------------


def _run(corpus: str = "another", **classes: str) -> RunClasses:
    prompts = {name: Prompts(positive=[text]) for name, text in classes.items()}
    return RunClasses(corpus=corpus, classes=prompts)


def _templates(labels: list[list[str]], multi_label: bool = False) -> EvaluationSet:
    """A set whose classes come from its labels."""
    data = _set(labels, multi_label=multi_label)
    return EvaluationSet(
        data.name, data.items, data.card.model_copy(update={"classes": {}}), data.classes, fingerprint="this"
    )


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_classes_of_the_run_are_the_default(multi_label: bool) -> None:
    run = _run(cat="a cat", fox="a fox")
    classes, which = default_classes(_templates([["cat"], ["dog"]], multi_label), run)
    assert (classes, which) == (
        run.classes,
        'classes: those of the run, whose corpus is another one: "cat", "fox"; --classes names others',
    )


def test_the_corpus_of_the_run_and_models_without_a_run_keep_theirs() -> None:
    data = _templates([["cat"], ["dog"]])
    for run in (None, _run("this", fox="a fox"), _run()):
        assert default_classes(data, run) == (data.classes, "")


def test_the_card_and_foreign_labels_come_before_the_run() -> None:
    written_out = _set([["cat"], ["dog"]])
    classes, which = default_classes(written_out, _run(cat="a cat", fox="a fox"))
    assert classes == written_out.classes
    assert which == 'classes: those of the card of this corpus: "cat", "dog"; --classes names others'
    foreign = _templates([["cat"], ["dog"]])
    classes, which = default_classes(foreign, _run(red="red", blue="blue"))
    assert classes == foreign.classes
    assert "none of its labels is a class of the run" in which


def test_the_classes_of_a_run_are_written_and_read(tmp_path: Path) -> None:
    classes = _run("of the run", cat="a cat")
    run_classes.save(tmp_path, classes)
    assert run_classes.load(str(tmp_path)) is None  # a file of that name in a folder that is no run
    (tmp_path / "recipe.yaml").write_text("base: b\n")
    (tmp_path / "checkpoints" / "step-8").mkdir(parents=True)
    for name in (tmp_path, tmp_path / "checkpoints" / "step-8"):
        assert run_classes.load(str(name)) == classes
    assert run_classes.load("openai/clip-vit-base-patch32") is None
    for text in (
        "{",
        "[]",
        '{"version": 2}',
        '{"version": 1, "corpus": "x", "classes": {}}',
        '{"version": 2, "corpus": "x", "classes": {"cat": {"positive": []}}}',
    ):
        (tmp_path / "classes.json").write_text(text)
        with pytest.raises(ModelError, match="not the classes of a run that this version reads"):
            run_classes.load(str(tmp_path))


def _answers(*counts: list[list[float]]) -> list[ProbeResult]:
    names = ["cat", "dog", "yak"]
    return [
        ProbeResult(
            "zero_shot",
            "test",
            [],
            "",
            1,
            diagnostics=Diagnostics(ConfusionMatrix(names, np.array(of_model, dtype=float))),
        )
        for of_model in counts
    ]


def test_a_warning_of_one_model_names_it() -> None:
    base, adapted = (
        ProbeResult("retrieval", "test", [], "r1", 1, warnings=warnings)
        for warnings in (["of both", "75 images"], ["of both"])
    )
    assert _warnings_by_model([base, adapted]) == ["of both", "base: 75 images"]
    assert _warnings_by_model([base]) == ["of both", "75 images"]
    assert _warnings_by_model([adapted, adapted, base]) == ["of both", "model 3: 75 images"]


def test_answers_to_classes_that_no_item_has_are_counted_for_each_model() -> None:
    base, adapted = [[6, 0, 4], [5, 5, 0], [0, 0, 0]], [[10, 0, 0], [0, 7, 3], [0, 0, 0]]
    assert answers_without_items(_answers(base)) == [
        'zero_shot on test: of 20 answers, to classes that no item has: "yak" 4 (20%)'
    ]
    assert answers_without_items(_answers(base, adapted)) == [
        'zero_shot on test: of 20 answers, to classes that no item has: "yak" 4 (20%) by the base, '
        "3 (15%) by the adapted model"
    ]
    third = [[9, 0, 1], [1, 9, 0], [0, 0, 0]]
    assert answers_without_items(_answers(base, adapted, third))[0].endswith(
        '"yak" 4 (20%) by model 1, 3 (15%) by model 2, 1 (5%) by model 3'
    )


def test_no_line_where_every_answer_is_a_class_of_some_item() -> None:
    right = [[10, 0, 0], [0, 10, 0], [0, 0, 0]]
    assert answers_without_items(_answers(right, right)) == []
    assert answers_without_items([ProbeResult("knn", "test", [], "", 1)]) == []
