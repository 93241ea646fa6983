"""Runs in stages: equal to plain ones at their ends, bit-exact after any resume, kept moments, shared work."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from domainclip.config import loading
from domainclip.errors import Interrupted
from domainclip.models import loading as models_loading
from domainclip.pipelines import finetune
from domainclip.pipelines.inputs import load_inputs
from domainclip.pipelines.training_setup import make_setup
from domainclip.training import optimizer, step
from domainclip.training.checkpointing import checkpoint, interruption
from domainclip.training.run_context import RunOptions
from domainclip.training.setup import StepRange
from domainclip.training.stages import stages_of
from tests.support.processes import finetuned

HALVES = "strategy={two_stage: {first_stage_share: 0.5, stage_lr_factors: [1.0, 0.5]}}"
QUICK = ("probes=[zero_shot]", "train.keep_checkpoints=10")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


def _finetune(file: Path, folder: Path, *changes: str, resume: bool = False, quiet: bool = True) -> None:
    finetune.finetune(
        loading.load_recipe(str(file), [*QUICK, *changes]),
        RunOptions(folder=folder, resume=resume, quiet=quiet),
    )


def _model(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _same(one: Path, other: Path) -> bool:
    found, wanted = _model(one), _model(other)
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in found)


@pytest.mark.parametrize(
    ("first", "plain"),
    [("0.0", "full"), ("1.0", "locked_image"), ("1.0, order: text_locked_first", "locked_text")],
)
def test_one_stage_is_the_plain_strategy_bit_by_bit(
    recipe_file: Path, tmp_path: Path, first: str, plain: str
) -> None:
    _finetune(
        recipe_file,
        tmp_path / "one",
        f"strategy={{two_stage: {{first_stage_share: {first}, stage_lr_factors: [1, 1]}}}}",
    )
    _finetune(recipe_file, tmp_path / "plain", f"strategy={plain}")
    assert _same(tmp_path / "one", tmp_path / "plain")
    # Negative control: with two stages it is neither.
    _finetune(
        recipe_file,
        tmp_path / "two",
        "strategy={two_stage: {first_stage_share: 0.5, stage_lr_factors: [1, 1]}}",
    )
    assert not _same(tmp_path / "two", tmp_path / "plain")


def test_the_switch(
    recipe_file: Path, tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _finetune(recipe_file, tmp_path / "run", HALVES, "train.warmup=0.5", quiet=False)
    said = capsys.readouterr().err
    assert "stage 1 of 2, steps 1 to 4: " in said
    assert "stage 2 of 2, steps 5 to 8: " in said
    # The first stage has its images encoded once; in the second they change, and nothing is kept of them.
    assert said.count("cached: embeddings of 40 images") == 1
    assert said.index("stage 1") < said.index("cached: embeddings") < said.index("stage 2")
    # Up, down, and up again at half the rate.
    expected = [
        share * optimizer.learning_rate_factor(at, 4, 0.5) * 1e-3 for share in (1.0, 0.5) for at in range(4)
    ]
    assert [line["learning_rate"] for line in _lines(tmp_path / "run")] == pytest.approx(expected)
    start = {name: weight.detach() for name, weight in models_loading.load_model(base).weights().items()}
    middle, _ = checkpoint.load(tmp_path / "run" / "checkpoints" / "step-000004")
    end, _ = checkpoint.load(tmp_path / "run" / "checkpoints" / "step-000008")
    for name, weight in start.items():
        locked = name.startswith("image/")
        assert torch.equal(middle["weights"][name], weight) == locked, name
        assert not torch.equal(end["weights"][name], middle["weights"][name]), name
    # Moments that go on have counted all steps, new ones those of the second stage.
    counted = {name: int(value) for name, value in end["optimizer"].items() if name.endswith(":step")}
    assert {count for name, count in counted.items() if name.startswith("text/")} == {8}
    assert {count for name, count in counted.items() if name.startswith("image/")} == {4}
    assert not any(name.startswith("image/") for name in middle["optimizer"])


def test_what_is_locked_again_keeps_its_weights_and_loses_its_moments(
    recipe_file: Path, tmp_path: Path
) -> None:
    _finetune(
        recipe_file, tmp_path / "run", "strategy={two_stage: {order: text_locked_first, image_lr_factor: 0}}"
    )
    middle, _ = checkpoint.load(tmp_path / "run" / "checkpoints" / "step-000004")
    end, _ = checkpoint.load(tmp_path / "run" / "checkpoints" / "step-000008")
    name = "image/vision_model.encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(middle["weights"][name], end["weights"][name])
    assert torch.equal(end["weights"][name], _model(tmp_path / "run")[name.removeprefix("image/")])
    assert {moment.split("/")[0] for moment in middle["optimizer"]} == {"image", "scale"}
    assert {moment.split("/")[0] for moment in end["optimizer"]} == {"text", "scale"}


def test_the_time_that_was_given_is_one_for_all_stages(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, began = interruption.InterruptHandler, []

    def noted(after: str | None, since: float | None = None) -> interruption.InterruptHandler:
        began.append(since)
        return plain(after, since)

    monkeypatch.setattr(interruption, "InterruptHandler", noted)
    asked = time.monotonic()
    _finetune(recipe_file, tmp_path / "run", HALVES, "train.time_limit=1h")
    assert len(began) == 2
    assert began[0] == began[1]
    assert asked <= began[0] < asked + 1  # not when the preparation was over


@pytest.mark.parametrize("share", [0.5, 0.6])
def test_resumed_at_every_step_ends_bit_equal(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    changes = [
        f"strategy={{two_stage: {{first_stage_share: {share}, stage_lr_factors: [1, 1]}}}}",
        "train.micro_batch_size=5",
    ]
    _finetune(recipe_file, tmp_path / "straight", *changes)
    plain = step.compute_gradients
    taken = 0

    def stop_each_time(*arguments: Any) -> Any:
        nonlocal taken
        taken += 1
        os.kill(os.getpid(), 15)  # noted now, obeyed at the end of this step
        return plain(*arguments)

    monkeypatch.setattr(step, "compute_gradients", stop_each_time)
    loads: list[Path] = []
    load = checkpoint.load_file
    monkeypatch.setattr(checkpoint, "load_file", lambda file: loads.append(file) or load(file))
    for session in range(8):
        try:
            _finetune(recipe_file, tmp_path / "stopped", *changes, resume=session > 0)
        except Interrupted:
            continue
        break
    assert taken == 8
    assert len(loads) == len(set(loads)) == 2 * 7  # weights and moments, once in each session but the first
    assert _same(tmp_path / "stopped", tmp_path / "straight")
    losses = [[line["loss"] for line in _lines(tmp_path / name)] for name in ("stopped", "straight")]
    assert losses[0] == losses[1]


def test_a_run_has_one_stage_unless_its_strategy_says_more(recipe_file: Path) -> None:
    ready = load_inputs(loading.load_recipe(str(recipe_file), []), "train")
    setup = make_setup(ready)
    (stage,) = stages_of(setup)
    assert (stage.steps, stage.factors) == (StepRange(0, 8), setup.factors)


@pytest.mark.parametrize(("first", "spans"), [(0.1, [(0, 1), (1, 8)]), (0.01, [(0, 8)]), (0.99, [(0, 8)])])
def test_shares_become_whole_steps(recipe_file: Path, first: float, spans: list[tuple[int, int]]) -> None:
    ready = load_inputs(
        loading.load_recipe(str(recipe_file), [f"strategy={{two_stage: {{first_stage_share: {first}}}}}"]),
        "train",
    )
    setup = make_setup(ready)
    found = stages_of(setup)
    assert [(one.steps.begin, one.steps.end) for one in found] == spans
    assert any(one.factors["image/visual_projection.weight"] for one in found) == (first < 0.99)


def test_two_processes_switch_together(recipe_file: Path, tmp_path: Path) -> None:
    changes = [HALVES, *QUICK, "train.micro_batch_size=3"]
    _finetune(recipe_file, tmp_path / "alone", *changes)
    finetuned(recipe_file, tmp_path / "together", *changes)
    one, two = _lines(tmp_path / "alone"), _lines(tmp_path / "together")
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], abs=1e-4)
    end = checkpoint.load(tmp_path / "together" / "checkpoints" / "step-000008")[0]["weights"]
    for name, weight in checkpoint.load(tmp_path / "alone" / "checkpoints" / "step-000008")[0][
        "weights"
    ].items():
        assert torch.allclose(end[name], weight, atol=2e-3), name
