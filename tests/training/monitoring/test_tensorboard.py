"""TensorBoard shows what metrics.jsonl holds, also after a resume, and no word of the corpus."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from domainclip.config import loading
from domainclip.config.training import TrainConfig
from domainclip.errors import RecipeError
from domainclip.pipelines import finetune
from domainclip.training.monitoring import tensorboard
from domainclip.training.run_context import RunOptions

TRACKED = [
    "train.log_to=tensorboard",
    "train.validate_every=4",
    "train.save_every=2",
    "train.keep_checkpoints=9",
]


def _finetune(recipe: Path, folder: Path, *, resume: bool = False) -> None:
    finetune.finetune(
        loading.load_recipe(str(recipe), TRACKED), RunOptions(folder=folder, resume=resume, quiet=True)
    )


def _shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder / tensorboard.FOLDER)).Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def _said(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_same_numbers_also_after_a_resume(recipe_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _finetune(recipe_file, folder)
    for step in (6, 8):  # steps 5 to 8 are done again
        shutil.rmtree(folder / "checkpoints" / f"step-{step:06d}")
    _finetune(recipe_file, folder, resume=True)
    shown, said = _shown(folder), _said(folder)
    for tag, wanted in (("loss", "loss"), ("scale", "scale"), ("grad_norm", "grad_norm")):
        expected = [(line["step"], line[wanted]) for line in said if wanted in line]
        assert [step for step, _ in shown[tag]] == list(range(1, 9))
        assert shown[tag] == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected]
    looks = [(line["step"], line["validation"]["loss"]) for line in said if "validation" in line]  # type: ignore[index]
    assert shown["validation/loss"] == [(step, pytest.approx(value, rel=1e-6)) for step, value in looks]
    assert "terms/contrastive" in shown
    written = b"".join(file.read_bytes() for file in (folder / tensorboard.FOLDER).iterdir())
    assert b"square" not in written  # every caption has the word


def test_words_and_flags_by_path() -> None:
    record = {"step": 3, "loss": 0.5, "of": "zero_shot", "terms": {"a": 1.0, "b": {"c": 2}}}
    assert dict(tensorboard.numbers(record)) == {"step": 3, "loss": 0.5, "terms/a": 1.0, "terms/b/c": 2}


def test_without_the_library_it_is_said_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RecipeError) as caught:
        tensorboard.require_tensorboard(TrainConfig(log_to="tensorboard"))
    assert str(caught.value) == (
        "train.log_to: tensorboard is not installed: pip install 'domainclip[tensorboard]', or leave log_to out; "
        "metrics.jsonl holds the same numbers"
    )
    tensorboard.require_tensorboard(TrainConfig())
