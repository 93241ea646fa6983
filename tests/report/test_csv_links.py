from __future__ import annotations

import csv
import io
from dataclasses import replace
from urllib.parse import unquote

import pytest

from domainclip.report import csv_links
from tests.report.made_results import ALONE, FEW, GAIN, context, errors, evaluation, row


def read(address: str) -> list[dict[str, str]]:
    kind, _, text = address.partition(",")
    assert kind == "data:text/csv;charset=utf-8"
    return list(csv.DictReader(io.StringIO(unquote(text).removeprefix("\ufeff"))))


def metrics(*rows: object, **facts: object) -> list[dict[str, str]]:
    links = csv_links.links(evaluation(rows), context(**facts))  # type: ignore[arg-type]
    return read(links[0][2])


def test_every_value_is_in_the_file() -> None:
    (line,) = metrics(GAIN)
    assert line["base"] == "0.079"
    assert (line["adapted_low"], line["difference_high"], line["p"]) == ("0.5", "0.53", "0.001")
    assert (line["probe"], line["set"], line["metric"], line["part"]) == (
        "zero_shot",
        "test",
        "macro_accuracy",
        "",
    )
    assert (line["higher_is_better"], line["verdict"]) == ("true", "better")


def test_undefined_values_are_empty() -> None:
    few, alone = metrics(FEW, ALONE)
    assert (few["difference"], few["difference_low"], few["p"]) == ("0.4", "", "")
    assert (alone["adapted"], alone["difference"], alone["verdict"]) == ("", "", "")


def test_every_line_of_an_invalid_evaluation_is_marked() -> None:
    (line,) = metrics(GAIN, invalid=["a leak"])
    assert line["verdict"] == "not valid"


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\tx", "  =1+1"])
def test_no_text_is_a_formula(text: str) -> None:
    (line,) = metrics(row(metric=f"accuracy/{text}", dataset=text))
    assert line["set"].startswith("'")
    assert line["part"].startswith("'")
    assert line["set"][1:] == text


def test_a_return_at_the_start_is_escaped() -> None:
    (line,) = metrics(row(dataset="\rx"))
    assert line["set"] == "\\u000dx"


def test_numbers_below_zero_stay_numbers() -> None:
    (line,) = metrics(replace(GAIN, difference=replace(GAIN.difference, value=-0.44)))
    assert line["difference"] == "-0.44"


def test_the_steps_of_the_training_are_a_table() -> None:
    lines = [{"step": 1, "loss": 2.0, "terms": {"a": 1}}, {"step": 2, "loss": float("nan"), "retention": 0.5}]
    links = csv_links.links(evaluation(), context(training=lines))
    assert [(label, name) for label, name, _ in links] == [
        ("metrics", "metrics.csv"),
        ("training steps", "training.csv"),
    ]
    assert read(links[1][2]) == [
        {"step": "1", "loss": "2.0", "retention": ""},
        {"step": "2", "loss": "", "retention": "0.5"},
    ]


def test_the_classes_and_confusions_of_both_models_are_tables() -> None:
    links = csv_links.links(evaluation(diagnostics=[errors(("=cat", "dog"))]), context(training=()))
    assert [name for _, name, _ in links] == ["metrics.csv", "classes.csv", "confusions.csv"]
    classes, confusions = read(links[1][2]), read(links[2][2])
    assert [(line["model"], line["class"], line["recall"]) for line in classes] == [
        ("base", "'=cat", "0.6"),
        ("base", "dog", "0.67"),
        ("adapted", "'=cat", "1.0"),
        ("adapted", "dog", "0.0"),
    ]
    assert [(line["true_class"], line["answer"], line["items"]) for line in confusions][-2:] == [
        ("'=cat", "'=cat", "5"),
        ("dog", "'=cat", "6"),
    ]


def test_the_judgement_of_a_metric_is_in_the_file() -> None:
    biased = replace(GAIN, biased=True, by_luck=(0.1, None), comparable=False, too_few="noise moves it")
    few, described = metrics(FEW, biased)
    assert few["no_interval"] == "there are only 4 groups: at least 6 are needed"
    assert (described["base_by_luck"], described["adapted_by_luck"]) == ("0.1", "")
    assert (described["headline"], described["unit"], described["comparisons"]) == ("true", "share", "1")
