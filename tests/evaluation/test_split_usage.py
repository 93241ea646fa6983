"""Split usage: how often a split was measured, with how many models and prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domainclip.evaluation import split_usage
from domainclip.evaluation.split_usage import SplitUsage, record


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_measurements_add_up_by_corpus_and_split(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    assert record("c1", "test", ["base"], "p1", run) == SplitUsage("test", 1, 1, 1)
    assert record("c1", "test", ["base", "adapted"], "p1") == SplitUsage("test", 3, 2, 1)
    assert record("c1", "validation", ["adapted"], "p1") == SplitUsage("validation", 1, 1, 1)
    assert record("c2", "test", ["adapted"], "p1") == SplitUsage("test", 1, 1, 1)
    usage = record("c1", "test", ["adapted"], "p2")
    assert usage == SplitUsage("test", 4, 2, 2)
    assert str(usage) == "the test split has been read 4 times with 2 models, 2 sets of prompts"
    lines = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    assert [(line["corpus"], line["split"], line["model"]) for line in lines] == [("c1", "test", "base")]


def test_one_measurement_is_in_the_singular() -> None:
    assert str(record("c1", "test", ["m"])) == "the test split has been read once with 1 model"


def test_a_line_holds_only_hashes_and_a_date(cache: Path) -> None:
    record("c" * 64, "test", ["m"], "p")
    (file,) = (cache / "ledgers").iterdir()
    assert file.name == f"{'c' * 40}.jsonl"
    assert file.stat().st_mode & 0o077 == 0
    line = json.loads(file.read_text())
    assert sorted(line) == ["corpus", "model", "prompts", "split", "when"]


def test_a_broken_line_is_skipped(cache: Path) -> None:
    record("c1", "test", ["m"])
    with (cache / "ledgers/c1.jsonl").open("a") as stream:
        stream.write('{"split": "te\n[1]\n')
    assert record("c1", "test", ["n"]) == SplitUsage("test", 2, 2, 1)


def test_a_measurement_of_all_items_counts_for_the_test_split() -> None:
    record("c1", "all", ["m"])
    assert record("c1", "test", ["n"]) == SplitUsage("test", 2, 2, 1)
    assert record("c1", "all", ["m"]) == SplitUsage("all", 2, 1, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_raises_no_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "ledgers").mkdir(parents=True)
    (cache / "ledgers" / "c1.jsonl").symlink_to("/dev/full")
    monkeypatch.setattr(split_usage, "_lines", lambda file: [])  # /dev/full has no end to read to
    assert record("c1", "test", ["m"]) == SplitUsage("test", 1, 1, 1)


def test_a_file_that_cannot_be_written_raises_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "file"))
    assert record("c1", "test", ["m", "n"]) == SplitUsage("test", 2, 2, 1)
    assert split_usage.FILE == "ledger.jsonl"
