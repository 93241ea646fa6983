"""Whole runs that look at held-out data: the weights of a run that does not, and the same course when resumed."""

from __future__ import annotations

import json
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from domainclip.config import loading
from domainclip.errors import Interrupted
from domainclip.models import dual_encoder
from domainclip.models import loading as models_loading
from domainclip.pipelines import finetune
from domainclip.training import step, validation
from domainclip.training.checkpointing import checkpoint
from domainclip.training.run_context import RunOptions
from tests.conftest import make_corpus
from tests.support.processes import finetuned

LOOKING = ["train.validate_every=3", "evaluate.cache_embeddings=false"]
_CARD = "columns: {image: file_name, texts: text, labels: label}, templates: ['a {} square'], min_items: 1"


@pytest.fixture
def general(tmp_path: Path) -> str:
    return f"retention={{path: {make_corpus(tmp_path / 'general', items=23)}, {_CARD}}}"


def _finetune(file: Path, folder: Path, *overrides: str, resume: bool = False) -> Path | None:
    return finetune.finetune(
        loading.load_recipe(str(file), overrides), RunOptions(folder=folder, resume=resume, quiet=True)
    )


def _lines(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Of the steps, and of the looks; without what the clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for key in ("seconds", "waited", "pairs_per_second"):
            line.pop(key, None)
    return [line for line in lines if "loss" in line], [line for line in lines if "validation" in line]


def _weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def _steps(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (folder / "checkpoints").iterdir())


@pytest.fixture
def lossy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look but that at the base finds more lost than is allowed."""
    plain = validation.ValidationSet.measure

    def measure(
        self: validation.ValidationSet, model: dual_encoder.DualEncoder, towers: Any = None
    ) -> dict[str, Any]:
        return plain(self, model, towers) | {"lost": 0.2}

    monkeypatch.setattr(validation.ValidationSet, "measure", measure)


def test_a_run_learns_the_same_whether_anyone_looks(recipe_file: Path, tmp_path: Path, general: str) -> None:
    options = ["strategy={lora: {rank: 2, dropout: 0.3}}", "train.micro_batch_size=5"]
    _finetune(recipe_file, tmp_path / "blind", *options, "evaluate.cache_embeddings=false")
    _finetune(recipe_file, tmp_path / "seeing", *options, *LOOKING, general)
    blind, seeing = _lines(tmp_path / "blind"), _lines(tmp_path / "seeing")
    assert seeing[0] == blind[0]
    assert [line["step"] for line in seeing[1]] == [0, 3, 6, 8]
    assert blind[1] == []
    adapter = "model/adapter_model.safetensors"
    assert (tmp_path / "seeing" / adapter).read_bytes() == (tmp_path / "blind" / adapter).read_bytes()
    losses = [line["validation"]["loss"] for line in seeing[1]]
    assert len(set(losses)) == 4
    assert {"figure", "retention", "lost"} <= seeing[1][-1]["validation"].keys()
    report = (tmp_path / "seeing" / "report.html").read_text()
    assert "Loss on held-out pairs" in report
    assert "Retention during training" in report
    assert "Loss on held-out pairs" not in (tmp_path / "blind" / "report.html").read_text()


def test_a_stopped_run_takes_the_same_course(
    recipe_file: Path, tmp_path: Path, general: str, lossy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rate that is halved on the way and the best step's weights in the end; stopped at every step."""
    options = [
        *LOOKING,
        general,
        "train.final_weights=best",
        "train.on_retention_drop=lower_rate",
        "train.keep_checkpoints=1",
    ]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    _finetune(recipe_file, straight, *options)
    plain = step.compute_gradients
    monkeypatch.setattr(
        step, "compute_gradients", lambda *a: (os.kill(os.getpid(), signal.SIGTERM), plain(*a))[1]
    )
    for session in range(8):
        with suppress(Interrupted):
            _finetune(recipe_file, stopped, *options, resume=session > 0)
    assert _lines(stopped) == _lines(straight)
    assert _weights(stopped) == _weights(straight)
    # The rate after each look is half of what the schedule says, then a quarter.
    plain_run = tmp_path / "plain"
    monkeypatch.undo()
    _finetune(recipe_file, plain_run, "evaluate.cache_embeddings=false")
    rates = [[line["learning_rate"] for line in _lines(folder)[0]] for folder in (straight, plain_run)]
    assert [one / other for one, other in zip(*rates, strict=True)] == pytest.approx(
        [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    )


def test_the_best_step_stays_and_is_taken(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain, losses = validation.ValidationSet.measure, iter([9.0, 5.0, 4.0, 4.5, 4.6, 4.7] * 2)
    monkeypatch.setattr(
        validation.ValidationSet, "measure", lambda *inputs: plain(*inputs) | {"loss": next(losses)}
    )
    folder = tmp_path / "run"
    # Looks at 2, 4, 6 and 8; the second is the best, and of the others only the newest stays.
    _finetune(
        recipe_file,
        folder,
        *LOOKING,
        "train.validate_every=2",
        "train.final_weights=best",
        "train.keep_checkpoints=1",
    )
    assert _steps(folder) == [4, 8]
    expected = checkpoint.load(folder / "checkpoints" / "step-000004")[0]["weights"]
    written = models_loading.load_model(folder / "model").weights()
    assert all(torch.equal(written[name], value) for name, value in expected.items())
    last = checkpoint.load(folder / "checkpoints" / "step-000008")[0]["weights"]
    assert any(not torch.equal(written[name], value) for name, value in last.items())
    facts = json.loads((folder / "results.json").read_text())["run"]["facts"]
    assert facts["weights_of_step"] == 4
    # A best checkpoint that was damaged since is said, and the last weights are taken.
    (folder / "checkpoints" / "step-000004" / "weights.safetensors").write_bytes(b"no more")
    with caplog.at_level(logging.WARNING, "domainclip"):
        _finetune(folder / "recipe.yaml", folder, resume=True)
    assert (
        f"{folder}/checkpoints/step-000004 is not complete: weights.safetensors has changed since it was written; the "
        "run ends with the weights of its last step"
    ) in caplog.messages
    assert all(
        torch.equal(models_loading.load_model(folder / "model").weights()[name], value)
        for name, value in last.items()
    )


def test_under_the_floor_a_run_ends_and_is_measured(
    recipe_file: Path, tmp_path: Path, general: str, lossy: None
) -> None:
    folder = tmp_path / "run"
    options = [*LOOKING, general, "train.on_retention_drop=stop"]
    _finetune(recipe_file, folder, *options)
    assert [line["step"] for line in _lines(folder)[0]] == [1, 2, 3]
    assert _steps(folder) == [2, 3]
    facts = json.loads((folder / "results.json").read_text())
    assert facts["run"]["facts"]["alarms"] == ["retention"]
    said = " ".join(facts["warnings"])
    assert "step 3: zero_shot accuracy on the retention set is" in said
    assert "training ends;" in said
    assert (
        "train.on_retention_drop: the retention set influences the training, so its metrics are optimistic"
        in said
    )
    before = _weights(folder)
    _finetune(folder / "recipe.yaml", folder, resume=True)  # has come to its end already
    assert [line["step"] for line in _lines(folder)[0]] == [1, 2, 3]
    assert _weights(folder) == before


def test_two_processes_see_what_one_sees(recipe_file: Path, tmp_path: Path, general: str) -> None:
    """Each looks at its share, and all decide alike: the run comes to its end, with the figures of one process."""
    options = [*LOOKING, general, "train.on_retention_drop=lower_rate", "train.final_weights=best"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    _finetune(recipe_file, alone, *options)
    finetuned(recipe_file, together, *options)
    one, two = _lines(alone)[1], _lines(together)[1]
    assert [line["step"] for line in two] == [line["step"] for line in one] == [0, 3, 6, 8]
    assert two[0] == one[0]  # the base: to the last digit
    for mine, theirs in zip(one, two, strict=True):
        assert theirs["validation"]["loss"] == pytest.approx(mine["validation"]["loss"], abs=1e-3)
