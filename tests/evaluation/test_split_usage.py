"""Split usage: how often a split was measured, with how many models and prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from domainclip.config.recipe import EvaluationConfig
from domainclip.evaluation import split_usage
from domainclip.evaluation.split_usage import ON_VALIDATION, Measured, SplitUsage, evaluation_of, record


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _read(corpus: str, split: str, evaluation: str, *adapted: str, prompts: str = "p1") -> SplitUsage:
    """An evaluation of the base and these adapted models."""
    return record(corpus, split, Measured(evaluation, base=["base"], adapted=adapted), prompts)


def test_evaluations_add_up_by_corpus_and_split(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    # A run measures its base first and its model later, under one id: that is one reading of one model.
    run_id = evaluation_of(run, "test")
    assert record("c1", "test", Measured(run_id, base=["base"]), "p1", run) == SplitUsage("test", 1, 0, 1)
    assert evaluation_of(run, "test") == run_id  # a resumed run goes on under it
    assert record("c1", "test", Measured(run_id, base=["base"]), "p1", run) == SplitUsage("test", 1, 0, 1)
    first = record("c1", "test", Measured(evaluation_of(run, "test"), adapted=["a1"]), "p1", run)
    assert first == SplitUsage("test", 1, 1, 1)
    assert str(first) == "the test split has been read once, for 1 adapted model"
    assert _read("c1", "validation", "e2", "a1") == SplitUsage("validation", 1, 1, 1)
    assert _read("c2", "test", "e3", "a1") == SplitUsage("test", 1, 1, 1)
    assert _read("c1", "test", "e4", "a1") == SplitUsage("test", 2, 1, 1)  # the same model again
    usage = _read("c1", "test", "e5", "a2", "a3", prompts="p2")
    assert usage == SplitUsage("test", 3, 3, 2)
    assert str(usage) == (
        "the test split has been read 3 times, for 3 adapted models, with 2 sets of prompts"
    )
    lines = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    assert [(line["corpus"], line["model"], line["adapted"]) for line in lines] == [
        *[("c1", "base", False)] * 2,
        ("c1", "a1", True),
    ]


def test_runs_beside_each_other_are_one_evaluation(tmp_path: Path) -> None:
    alone = evaluation_of(tmp_path / "seed0", "test")
    assert alone != evaluation_of(tmp_path / "seed1", "test")  # nothing says that they belong together
    record("c1", "test", Measured("together", base=["base"]), run=tmp_path)
    assert (
        evaluation_of(tmp_path / "seed0", "test") == evaluation_of(tmp_path / "seed1", "test") == "together"
    )


def test_another_choice_in_the_same_folder_is_another_evaluation(tmp_path: Path) -> None:
    record("c1", "validation", Measured("chooses", base=["base"], adapted=["a", "b"]), run=tmp_path)
    final = evaluation_of(tmp_path, "test", ["a"])
    assert final != "chooses"
    record("c1", "test", Measured(final, base=["base"], adapted=["a"]), run=tmp_path)
    assert evaluation_of(tmp_path, "test", ["a"]) == final  # the same model again
    assert evaluation_of(tmp_path, "test", ["a", "a of another seed"]) == final  # more of it
    assert evaluation_of(tmp_path, "test", ["b"]) not in (final, "chooses")


def test_the_third_reading_of_the_test_split_warns_and_says_what_to_type() -> None:
    usages = [_read("c1", "test", f"e{i}", "a1") for i in range(3)]
    assert [usage.overused for usage in usages] == [False, False, True]
    assert [bool(usage.warning) for usage in usages] == [False, False, True]
    assert usages[2].warning.startswith("This is evaluation 3 of the test split, for 1 adapted model: ")
    assert f"with {ON_VALIDATION} at the end" in usages[2].warning
    # The remedy is a key that a recipe has, and the validation split may be read at will.
    key, value = ON_VALIDATION.split("=")
    assert (key, value) == ("evaluate.split", "validation")
    assert {"validation", "test"} == set(get_args(EvaluationConfig.model_fields["split"].annotation))
    assert not any(_read("c1", "validation", f"v{i}", "a1").warning for i in range(9))


def test_the_base_alone() -> None:
    assert str(record("c1", "test", Measured("e", base=["m"]))) == (
        "the test split has been read once, for the base alone"
    )


def test_a_line_holds_only_hashes_and_a_date(cache: Path) -> None:
    _read("c" * 64, "test", "e", prompts="p")
    (file,) = (cache / "ledgers").iterdir()
    assert file.name == f"{'c' * 40}.jsonl"
    assert file.stat().st_mode & 0o077 == 0
    line = json.loads(file.read_text())
    assert sorted(line) == ["adapted", "corpus", "evaluation", "model", "prompts", "split", "when"]


def test_a_broken_line_is_skipped(cache: Path) -> None:
    _read("c1", "test", "e1", "m")
    with (cache / "ledgers/c1.jsonl").open("a") as stream:
        stream.write('{"split": "te\n[1]\n{"split": "test"}\n')
    assert _read("c1", "test", "e2", "n") == SplitUsage("test", 2, 2, 1)


def test_a_measurement_of_all_items_counts_for_the_test_split() -> None:
    _read("c1", "all", "e1", "m")
    assert _read("c1", "test", "e2", "n") == SplitUsage("test", 2, 2, 1)
    assert _read("c1", "all", "e3", "m") == SplitUsage("all", 2, 1, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_raises_no_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "ledgers").mkdir(parents=True)
    (cache / "ledgers" / "c1.jsonl").symlink_to("/dev/full")
    monkeypatch.setattr(split_usage, "_lines", lambda file: [])  # /dev/full has no end to read to
    assert _read("c1", "test", "e", "m") == SplitUsage("test", 1, 1, 1)


def test_a_file_that_cannot_be_written_raises_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "file"))
    assert _read("c1", "test", "e", "m", "n") == SplitUsage("test", 1, 2, 1)
    assert split_usage.FILE == "ledger.jsonl"
