from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from domainclip.errors import ModelError
from domainclip.evaluation.controls import NullControl
from domainclip.evaluation.split_usage import SplitUsage
from domainclip.report import results_file
from tests.report.made_results import ALONE, FEW, GAIN, context, errors, evaluation


def test_the_file_is_version_two_of_the_format() -> None:
    file = results_file.to_results(evaluation([GAIN]), context(warnings=["mind"]))
    data = json.loads(file.model_dump_json())
    assert list(data) == [
        "schema_version",
        "run",
        "base",
        "adapted",
        "corpus",
        "protocol",
        "valid",
        "warnings",
        "results",
        "diagnostics",
    ]
    assert (data["schema_version"], data["valid"], data["warnings"]) == (2, True, ["mind"])
    assert data["results"] == [
        {
            "probe": "zero_shot",
            "dataset": "test",
            "metric": "macro_accuracy",
            "higher_is_better": True,
            "unit": "share",
            "chance": 0.1,
            "headline": True,
            "items": 8,
            "groups": 8,
            "base": {"value": 0.079, "low": 0.05, "high": 0.11},
            "adapted": {"value": 0.554, "low": 0.5, "high": 0.61},
            "difference": {
                "value": 0.475,
                "low": 0.42,
                "high": 0.53,
                "p": 0.001,
                "comparisons": 1,
                "adjusted_p": None,
                "simultaneous": None,
                "at_most_lost": 0.0,
                "margin": None,
            },
            "verdict": "better",
            "not_judged": "",
            "no_interval": "",
            "by_luck": [],
        }
    ]
    assert data["run"]["strategy"] == "locked_image"
    assert data["protocol"]["probes"][0]["primary"] == "macro_accuracy"


def test_every_field_is_required() -> None:
    """A reader never has to guess what the absence of a key means."""
    schema = results_file.ResultsFile.model_json_schema()
    for name in ("ResultsFile", "Result", "JudgedDifference", "Interval", "ErrorsResult", "Scores", "Curves"):
        part = schema if name == "ResultsFile" else schema["$defs"][name]
        assert sorted(part["required"]) == sorted(part["properties"]), name


def test_the_diagnostics_of_both_models_are_in_the_file() -> None:
    file = results_file.to_results(evaluation(diagnostics=[errors()]), context())
    (found,) = json.loads(file.model_dump_json())["diagnostics"]
    assert (found["probe"], found["dataset"]) == ("zero_shot", "test")
    assert found["base"]["confusion"] == {
        "classes": ["cat", "dog"],
        "cells": [[0, 0, 3.0], [0, 1, 1.5], [1, 0, 2.0], [1, 1, 4.0]],
    }
    assert found["adapted"]["classes"][1]["precision"] is None  # undefined: no answer of this class
    assert found["base"]["curves"][0]["sensitivity"] == [0.0, 0.5, 1.0]
    assert found["base"]["curves"][0]["point"]["negative_predictive_value"] == 0.75
    alone = results_file.to_results(
        evaluation([ALONE], diagnostics=[replace(errors(), models=errors().models[:1])]), context(run=None)
    )
    assert alone.diagnostics[0].adapted is None


def test_an_invalid_evaluation_has_no_verdict() -> None:
    (row,) = results_file.to_results(evaluation([GAIN]), context(invalid=["a leak"])).results
    assert row.verdict is None


def test_split_usage_and_controls_are_in_the_protocol() -> None:
    control = NullControl("zero_shot", "test", "macro_accuracy", "no difference shown", 0.04, 100)
    file = results_file.to_results(
        evaluation(controls=[control]), context(readings=SplitUsage("test", 3, 2, 1))
    )
    assert file.protocol["split_usage"] == {
        "split": "test",
        "evaluations": 3,
        "adapted_models": 2,
        "prompts": 1,
    }
    assert file.protocol["controls"] == [
        {
            "probe": "zero_shot",
            "dataset": "test",
            "metric": "macro_accuracy",
            "itself": "no difference shown",
            "share": 0.04,
            "swaps": 100,
        }
    ]


def test_undefined_values_are_null() -> None:
    few, alone = results_file.to_results(evaluation([FEW, ALONE]), context(run=None)).results
    assert few.difference is not None
    assert few.difference.model_dump() == {
        "value": 0.4,
        "low": None,
        "high": None,
        "p": None,
        "comparisons": 1,
        "adjusted_p": None,
        "simultaneous": None,
        "at_most_lost": None,
        "margin": None,
    }
    assert (alone.adapted, alone.difference) == (None, None)
    assert "NaN" not in results_file.to_results(evaluation([FEW, ALONE]), context()).model_dump_json()


@pytest.mark.parametrize(("leak", "measured"), [(["a leak"], True), ([], False)])
def test_a_leak_or_a_mismatch_makes_it_invalid(leak: list[str], measured: bool) -> None:
    file = results_file.to_results(evaluation(valid=measured, warnings=["mismatch"]), context(invalid=leak))
    assert not file.valid
    assert file.warnings == [*leak, "mismatch"]


def test_a_written_file_is_read_back(tmp_path: Path) -> None:
    file = results_file.to_results(evaluation(), context())
    (tmp_path / "results.json").write_text(file.model_dump_json(), encoding="utf-8")
    assert results_file.load(tmp_path / "results.json").model_dump_json() == file.model_dump_json()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    with pytest.raises(ModelError) as error:
        results_file.load(file)
    assert str(error.value) == f"{file}: No such file or directory: run `domainclip eval` first"
    data = results_file.to_results(evaluation(), context()).model_dump()
    file.write_text(json.dumps({**data, "schema_version": 3}), encoding="utf-8")
    with pytest.raises(ModelError) as error:
        results_file.load(file)
    assert str(error.value) == f"{file}: results.schema_version: input should be 2, got 3"


def test_version_one_is_refused_with_the_command_that_writes_it_again(tmp_path: Path) -> None:
    folder = tmp_path / "run one"
    folder.mkdir()
    (folder / "results.json").write_text('{"schema_version": 1, "run": {}, "results": []}', encoding="utf-8")
    with pytest.raises(ModelError) as error:
        results_file.load(folder / "results.json")
    assert str(error.value) == (
        f"{folder / 'results.json'}: schema_version: 1 is an older format, this version reads 2: measure the "
        f"run again with `domainclip finetune --resume --run-dir '{folder}'`"
    )


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b'{"results": [Pat1947', "not valid JSON: run `domainclip eval` again"),
        (b"\x00", "not valid JSON: run `domainclip eval` again"),
        (
            {"corpus": {"splits": {"train": [800]}}},
            "results.corpus: splits.train: input should be a mapping, got [800]",
        ),
        ({"protocol": {"probes": None}}, "results.protocol: probes: input should be a valid list, got None"),
        ({"run": {"facts": 1}}, "results.run: facts: input should be a mapping, got 1"),
    ],
)
def test_a_broken_file_is_refused_before_a_card_is_made_of_it(
    tmp_path: Path, data: bytes | dict[str, object], end: str
) -> None:
    file = tmp_path / "results.json"
    whole = results_file.to_results(evaluation(), context()).model_dump()
    file.write_bytes(data if isinstance(data, bytes) else json.dumps({**whole, **data}).encode())
    with pytest.raises(ModelError) as error:
        results_file.load(file)
    assert str(error.value) == f"{file}: {end}"
