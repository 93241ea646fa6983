from __future__ import annotations

import json
from pathlib import Path

import pytest

from domainclip.errors import ModelError
from domainclip.evaluation.controls import NullControl
from domainclip.evaluation.split_usage import SplitUsage
from domainclip.report import results_file
from tests.report.made_results import ALONE, FEW, GAIN, context, evaluation


def test_the_file_is_version_one_of_the_format() -> None:
    file = results_file.to_results(evaluation([GAIN]), context(warnings=["mind"]))
    data = json.loads(file.model_dump_json())
    assert list(data) == [
        "schema_version",
        "run",
        "base",
        "corpus",
        "protocol",
        "valid",
        "warnings",
        "results",
        "adapted",
    ]
    assert (data["schema_version"], data["valid"], data["warnings"]) == (1, True, ["mind"])
    assert data["results"] == [
        {
            "probe": "zero_shot",
            "dataset": "test",
            "metric": "macro_accuracy",
            "higher_is_better": True,
            "n": 8,
            "groups": 8,
            "base": {"value": 0.079, "low": 0.05, "high": 0.11},
            "adapted": {"value": 0.554, "low": 0.5, "high": 0.61},
            "difference": {"value": 0.475, "low": 0.42, "high": 0.53, "p": 0.001},
            "unit": "share",
            "verdict": "better",
            "primary": True,
            "chance": 0.1,
            "control_fault": "",
            "too_few": "",
            "adjusted_p": None,
            "comparisons": 1,
        }
    ]
    assert data["run"]["strategy"] == "locked_image"
    assert data["protocol"]["probes"][0]["primary"] == "macro_accuracy"


def test_a_file_without_the_added_keys_is_valid(tmp_path: Path) -> None:
    data = json.loads(results_file.to_results(evaluation([GAIN]), context()).model_dump_json())
    for key in ("unit", "verdict", "primary", "chance"):
        del data["results"][0][key]
    (tmp_path / "results.json").write_text(json.dumps(data), encoding="utf-8")
    (old,) = results_file.load(tmp_path / "results.json").results
    assert (old.unit, old.verdict, old.primary, old.chance) == ("share", None, None, None)


def test_an_invalid_evaluation_has_no_verdict() -> None:
    (row,) = results_file.to_results(evaluation([GAIN]), context(invalid=["a leak"])).results
    assert row.verdict is None


def test_split_usage_and_controls_are_in_the_protocol() -> None:
    control = NullControl("zero_shot", "test", "macro_accuracy", "no difference shown", 0.04, 100)
    file = results_file.to_results(
        evaluation(controls=[control]), context(readings=SplitUsage("test", 3, 2, 1))
    )
    assert file.protocol["readings"] == {
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
    assert few.difference == results_file.Difference(value=0.4, low=None, high=None, p=None)
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
    file.write_text(json.dumps({**data, "schema_version": 2}), encoding="utf-8")
    with pytest.raises(ModelError) as error:
        results_file.load(file)
    assert str(error.value) == f"{file}: results.schema_version: input should be 1, got 2"


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
