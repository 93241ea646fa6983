"""The number of processes changes no digit of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from domainclip.pipelines import evaluate
from domainclip.pipelines.eval_request import EvalRequest
from tests.conftest import make_corpus
from tests.support.processes import launched
from tests.support.tiny_models import tiny_clip


def _numbers(value: Any, at: str = "") -> dict[str, float]:
    """Every number of a JSON value by its place."""
    if isinstance(value, dict):
        return {k: v for key, one in value.items() for k, v in _numbers(one, f"{at}/{key}").items()}
    if isinstance(value, list):
        return {k: v for i, one in enumerate(value) for k, v in _numbers(one, f"{at}/{i}").items()}
    return {at: value} if isinstance(value, (int, float)) and not isinstance(value, bool) else {}


@pytest.fixture
def found(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """results.json of one process and of two, with a general set, of two models."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where no other test has counted an evaluation
    other = tiny_clip(tmp_path / "other", seed=7)
    general = make_corpus(tmp_path / "general", items=37)  # no multiple of anything
    said = ["evaluate.cache_embeddings=false", "probes={zero_shot: {}, retrieval: {}, knn: {}}"]
    card = "columns: {image: file_name, texts: text, labels: label}, templates: ['a {} square'], min_items: 1"
    said.append(f"retention={{path: {general}, {card}}}")
    evaluate.evaluate_models(
        EvalRequest(
            models=[str(other)], against="base", recipe=str(recipe_file), overrides=said, out=tmp_path / "1"
        )
    )
    asked = ["eval", str(other), "--against", "base", "-r", str(recipe_file), "--out", str(tmp_path / "2")]
    (tmp_path / "processes").mkdir()
    with launched(2, tmp_path / "processes", *asked, *said) as processes:
        for process in processes:
            process.join(200)
    assert [process.exitcode for process in processes] == [0, 0]
    printed = [(tmp_path / "processes" / f"{rank}.out").read_text() for rank in (0, 1)]
    assert printed == [f"{tmp_path}/2/report.html\n", ""]
    return [json.loads((tmp_path / name / "results.json").read_text()) for name in "12"]


def test_two_processes_do_not_change_a_digit(found: list[dict[str, Any]]) -> None:
    """Fault 38, by real processes: every figure, interval and p value, of both sets, and every protocol entry."""
    one, two = found
    for results in found:
        results["protocol"].pop("split_usage", None)  # how often these items were looked at: once more
    assert one["results"] == two["results"]
    assert one["protocol"] == two["protocol"]
    assert one["warnings"] == two["warnings"]
    numbers = _numbers(one["results"])
    assert len(numbers) > 100
    assert {row["dataset"] for row in one["results"]} == {"test", "general"}
    assert len({row["probe"] for row in one["results"]}) == 3
    # Not because nothing happened: the models differ.
    assert any(row["difference"]["value"] for row in one["results"] if row.get("difference"))
