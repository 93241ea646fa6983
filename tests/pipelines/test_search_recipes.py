"""The built-in recipes of composed search and of words in images, on the corpora that they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from domainclip.pipelines.eval_request import EvalRequest
from domainclip.pipelines.evaluate import evaluate_models
from examples import make_corpora
from tests.support.tiny_models import tiny_clip


@pytest.mark.parametrize(
    ("recipe", "kind", "metrics"),
    [
        ("composed_search", "changes", {"composed": 7, "image_difference": 2}),
        ("scene_text", "words", {"scene_text": 3}),
    ],
)
def test_base_and_another_model_on_the_same_queries(
    recipe: str, kind: str, metrics: dict[str, int], tmp_path: Path, base: Path
) -> None:
    make_corpora.CORPORA[kind](tmp_path / kind, 60)
    other = tiny_clip(tmp_path / "other", seed=1)
    overrides = [f"corpus.path={tmp_path / kind}", f"base={base}", "evaluate.bootstrap_samples=100"]
    page = evaluate_models(
        EvalRequest(
            models=[str(other)],
            against=str(base),
            recipe=recipe,
            overrides=[*overrides, "evaluate.cache_embeddings=false"],
            out=tmp_path / "out",
            quiet=True,
        )
    )
    assert page is not None
    found = json.loads((tmp_path / "out" / "results.json").read_bytes())
    rows: list[dict[str, Any]] = [row for row in found["results"] if row["probe"] in metrics]
    assert {name: sum(row["probe"] == name for row in rows) for name in metrics} == metrics
    for row in rows:
        assert row["items"] > 5
        assert row["base"]["low"] - 1e-9 <= row["base"]["value"] <= row["base"]["high"] + 1e-9
        assert row["difference"] is not None
        assert row["verdict"]
    assert "images/" not in (tmp_path / "out" / "results.json").read_text()


def test_the_corpora_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    for kind in ("changes", "words"):
        first, second = (make_corpora.CORPORA[kind](tmp_path / f"{kind}{i}", 20) for i in range(2))
        assert first.read_bytes() == second.read_bytes()
        for image in sorted((first.parent / "images").iterdir()):
            assert image.read_bytes() == (second.parent / "images" / image.name).read_bytes()


def test_words_of_a_split_are_in_no_other(tmp_path: Path) -> None:
    table = make_corpora.words(tmp_path, 90)
    words: dict[str, set[str]] = {}
    for line in table.read_text().splitlines()[1:]:
        *_, written, _, split = line.split(",")
        words.setdefault(split, set()).update(written.split(";"))
    assert sorted(words) == ["test", "train", "val"]
    assert words["test"].isdisjoint(words["train"] | words["val"])
