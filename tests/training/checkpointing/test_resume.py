"""A run continues only from a complete checkpoint of the same recipe, corpus, curation and base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from domainclip.errors import DataError, ModelError, RecipeError
from domainclip.training.checkpointing import checkpoint
from domainclip.training.checkpointing.resume import changed_keys, find_checkpoint

RECIPE = {"train": {"epochs": 3, "batch_size": 16}, "strategy": "full"}
IDENTITY = {"recipe": RECIPE, "corpus": "c" * 64, "base": "b" * 64, "curated": "chosen"}


def _save(run: Path, step: int = 7, **changes: Any) -> Path:
    state = {"identity": {**IDENTITY, **changes}}
    return checkpoint.save(run / "checkpoints", step, {"weights": {"a": torch.zeros(2)}}, state, keep=3)


def test_the_newest_checkpoint_of_the_same_run(tmp_path: Path) -> None:
    _save(tmp_path, 7)
    newest = _save(tmp_path, 8)
    assert find_checkpoint(tmp_path, IDENTITY) == newest


def test_a_run_without_a_checkpoint_starts_anew_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert find_checkpoint(tmp_path, IDENTITY) is None
    assert caplog.messages == [f"{tmp_path}: no complete checkpoint; starting from the first step"]


def test_damaged_checkpoints_alone_are_refused_with_their_number(tmp_path: Path) -> None:
    for step in (7, 8):
        (_save(tmp_path, step) / "state.json").unlink()
    with pytest.raises(ModelError, match=r"^--resume: none of the 2 checkpoints in .*; remove that folder"):
        find_checkpoint(tmp_path, IDENTITY)


def test_a_changed_recipe_is_refused_with_its_keys(tmp_path: Path) -> None:
    _save(tmp_path)
    changed = {**RECIPE, "train": {"epochs": 5, "batch_size": 16}}
    with pytest.raises(RecipeError) as caught:
        find_checkpoint(tmp_path, {**IDENTITY, "recipe": changed})
    assert str(caught.value) == ("--resume: the recipe has changed since step-000007: train.epochs: 3, now 5")


@pytest.mark.parametrize(
    ("part", "error", "message"),
    [
        (
            "corpus",
            DataError,
            "the corpus has changed since step-000007 (sha256 cccccccccccc, now nnnnnnnnnnnn)",
        ),
        (
            "base",
            ModelError,
            "the base's weights have changed since step-000007 (sha256 bbbbbbbbbbbb, now nnnnnnnnnnnn)",
        ),
        ("curated", DataError, "the curation chooses other items, or another order, than before step-000007"),
    ],
)
def test_other_changes_are_refused(tmp_path: Path, part: str, error: type[Exception], message: str) -> None:
    _save(tmp_path)
    with pytest.raises(error) as caught:
        find_checkpoint(tmp_path, {**IDENTITY, part: "n" * 64})
    assert str(caught.value).startswith(f"--resume: {message}: ")
    assert str(caught.value).endswith(": start a new run")


def test_a_checkpoint_without_a_record_of_the_curation_is_accepted(tmp_path: Path) -> None:
    path = _save(tmp_path, curated=None)
    assert find_checkpoint(tmp_path, IDENTITY) == path


def test_keys_that_differ() -> None:
    before = {"a": 1, "b": {"c": [1, 2], "d": None}, "gone": True}
    now = {"a": 1, "b": {"c": [1, 3], "d": None}, "new": "x"}
    assert changed_keys(before, now) == [
        "b.c: [1, 2], now [1, 3]",
        "gone: True, now None",
        "new: None, now x",
    ]
    assert changed_keys({"a": {"b": 1}}, {"a": 2}) == ["a: {'b': 1}, now 2"]
    assert changed_keys({"a": 2}, {"a": {"b": 1}}) == ["a: 2, now {'b': 1}"]
