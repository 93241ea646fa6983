from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from domainclip.evaluation.diagnostics import ConfusionMatrix, Diagnostics
from domainclip.evaluation.evaluate import ComparedDiagnostics
from domainclip.report import class_curves, error_analysis
from domainclip.report.writer import write
from tests.report.made_results import context, errors, evaluation, row


def test_the_confusion_matrix_is_shaded_by_the_share_of_its_row() -> None:
    (section,) = error_analysis.sections(evaluation(diagnostics=[errors()]))
    base, adapted = section.confusions
    assert (base.model, adapted.model) == ("Base", "Adapted")
    # 3 of 4.5 cats are right: two thirds of six levels; 1.5 of 4.5 are called a dog.
    assert base.rows[0] == ("cat", [error_analysis.Cell("3", 4, True), error_analysis.Cell("1.5", 2, False)])
    assert [cell.level for cell in adapted.rows[1][1]] == [6, 0]


def test_the_most_frequent_confusions_are_those_of_the_last_model() -> None:
    (section,) = error_analysis.sections(evaluation(diagnostics=[errors()]))
    assert section.pairs == [error_analysis.ConfusedPair("dog", "cat", "2 → 6", "6")]


def test_twenty_classes_are_a_list_of_pairs() -> None:
    names = [f"class {i}" for i in range(20)]
    counts = np.eye(20) * 5
    counts[3, 4] = 2
    one = Diagnostics(ConfusionMatrix(names, counts))
    (section,) = error_analysis.sections(
        evaluation(diagnostics=[ComparedDiagnostics("zero_shot", "general", [one, one])])
    )
    assert section.confusions == []
    assert [(pair.truth, pair.answer, pair.count, pair.of) for pair in section.pairs] == [
        ("class 3", "class 4", "2 → 2", "7")
    ]


def test_classes_are_in_ascending_order_of_recall_with_undefined_scores_last() -> None:
    (section,) = error_analysis.sections(evaluation(diagnostics=[errors()]))
    assert [line.name for line in section.lines] == ["dog", "cat"]
    dog = section.lines[0]
    assert (dog.items, dog.groups, dog.recall, dog.precision) == ("6", "5", "0.670 → 0.000", "0.730 → –")


def test_curves_rise_from_the_corner_and_show_the_operating_point() -> None:
    models = errors().models
    (pair,) = class_curves.pairs(models)
    assert pair.title == "cat: AUROC 0.700 → 0.900"
    roc, precision_recall = pair.boxes
    # The false positive rate across, the sensitivity up; y is counted from the top.
    assert roc.lines[0].points == "0.0,100.0 25.0,50.0 100.0,0.0"
    assert roc.lines[0].at == (40.0, 20.0)  # specificity 0.6, sensitivity 0.8
    assert precision_recall.lines[1].points == "0.0,0.0 80.0,25.0 100.0,50.0"
    assert precision_recall.lines[0].at == (80.0, 60.0)
    assert precision_recall.chance == (75.0, 75.0)  # the prevalence, 0.25
    assert "base at its threshold: sensitivity 0.800, specificity 0.600" in roc.spoken
    (point,) = class_curves.points(models)
    assert point.positive_predictive_value == "0.400 → 0.400"


def test_a_class_that_one_model_lacks_has_no_curve() -> None:
    base, adapted = errors().models
    assert class_curves.pairs([base, replace(adapted, curves=())]) == []
    assert class_curves.points([base, replace(adapted, curves=[replace(base.curves[0], point=None)])]) == []


def test_the_worst_subgroups_have_their_size_and_the_gap_by_luck() -> None:
    cells = [
        row(f"accuracy/site={i}", probe="subgroups", adapted=(i / 10, 0, 1), n=10 + i, groups=5 + i)
        for i in range(7)
    ]
    entry = evaluation().protocol[0] | {
        "probe": "subgroups",
        "details": {"figure": "accuracy", "gap_by_luck": {"site": 0.123}},
    }
    (found,) = error_analysis.worst_subgroups(evaluation(cells, protocol=[entry]))
    assert (found.title, found.of, found.luck) == ("accuracy on test", 7, "site 0.123")
    assert [(line.name, line.n, line.groups) for line in found.lines][:2] == [
        ("site=0", "10", "5"),
        ("site=1", "11", "6"),
    ]
    assert len(found.lines) == 5
    # The gap by luck is that of one metric, and says nothing of another.
    others = [replace(cell, metric=cell.metric.replace("accuracy", "auroc")) for cell in cells]
    assert error_analysis.worst_subgroups(evaluation(others, protocol=[entry]))[0].luck == ""
    # Nor is a calibration error worst where a cell is small.
    assert error_analysis.worst_subgroups(evaluation([replace(c, biased=True) for c in cells])) == []


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_both_pages_have_the_tables(tmp_path: Path, name: str) -> None:
    write(tmp_path, evaluation(diagnostics=[errors(("<b>cat", "dog|"))]), context())
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert "Where it errs" in text
    assert "0.670 → 0.000" in text
    assert "&lt;b&gt;cat" in text
    assert "<b>cat" not in text
