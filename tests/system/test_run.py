"""Whole runs on a tiny base and corpus: what they leave, and that nothing is lost when they are stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file

from domainclip.config import loading
from domainclip.distributed import collectives
from domainclip.errors import DataError, DivergedError, HubError, Interrupted, ModelError, RecipeError
from domainclip.models import dual_encoder
from domainclip.models import loading as models_loading
from domainclip.pipelines import finetune
from domainclip.pipelines.checkpoint_model import load_checkpoint
from domainclip.pipelines.eval_request import EvalRequest
from domainclip.pipelines.evaluate import evaluate_models
from domainclip.report.results_file import load as load_results
from domainclip.training import step
from domainclip.training.checkpointing import checkpoint
from domainclip.training.checkpointing import resume as checkpointing_resume
from domainclip.training.run_context import RunOptions
from tests.conftest import make_corpus
from tests.support.processes import forked


def _finetune(file: Path, folder: Path, *overrides: str, resume: bool = False) -> Path | None:
    return finetune.finetune(
        loading.load_recipe(str(file), overrides), RunOptions(folder=folder, resume=resume, quiet=True)
    )


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def whole(tmp_path: Path, recipe_file: Path) -> Path:
    """An uninterrupted run."""
    _finetune(recipe_file, tmp_path / "whole")
    return tmp_path / "whole"


def test_what_a_run_leaves(whole: Path, base: Path) -> None:
    left = {path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()}
    assert {
        "recipe.yaml",
        "environment.json",
        "metrics.jsonl",
        "ledger.jsonl",
        "results.json",
        "items.parquet",
        "report.html",
        "report.md",
        "model/config.json",
        "model/model.safetensors",
        "model/preprocessor_config.json",
        "model/tokenizer.json",
    } <= left
    results = load_results(whole / "results.json")
    assert results.valid
    # One reading: the base, before training, and the model at the end, share its id.
    read = [json.loads(line) for line in (whole / "ledger.jsonl").read_text().splitlines()]
    assert [line["split"] for line in read] == ["test", "test"]
    assert len({line["model"] for line in read}) == 2
    assert {line["evaluation"] for line in read} == {read[0]["evaluation"]}
    assert [line["adapted"] for line in read] == [False, True]
    assert results.protocol["split_usage"]["adapted_models"] >= 1
    macro = next(r for r in results.results if r.metric == "macro_accuracy" and r.dataset == "test")
    assert macro.items == 16
    assert macro.groups == 8
    assert macro.adapted is not None
    assert macro.difference is not None
    assert macro.difference.value == pytest.approx(macro.adapted.value - macro.base.value)
    # 40 training pairs, 3 epochs, 16 a step: 8 steps, each logged.
    assert [line["step"] for line in _lines(whole)] == list(range(1, 9))
    assert _lines(whole)[-1]["loss"] < _lines(whole)[0]["loss"]
    # The resolved recipe gives the same run again, to the last bit.
    again = whole.parent / "again"
    _finetune(whole / "recipe.yaml", again)
    assert _weights(again) == _weights(whole)
    # Plain transformers reads the model, and it says the same.
    from transformers import CLIPModel

    plain = CLIPModel.from_pretrained(whole / "model")
    assert plain.logit_scale.exp().item() == pytest.approx(_lines(whole)[-1]["scale"], rel=1e-6)


def _weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def _slowly(file: Path, folder: Path) -> None:
    """So that a kill comes in the middle of a step and not after the last one."""
    plain = step.compute_gradients

    def late(*arguments: Any) -> Any:
        time.sleep(0.3)
        return plain(*arguments)

    with patch.object(step, "compute_gradients", late):
        _finetune(file, folder)


def test_a_checkpoint_is_a_model_that_eval_measures(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path("runs/adapted")
    _finetune(recipe_file, run, "strategy={lora: {rank: 2}}", "train.learning_rate=1e-2")
    last, first = (run / "checkpoints" / f"step-{n:06d}" for n in (8, 4))
    saved = models_loading.load_model(run / "model").weights()
    for name, weight in load_checkpoint(str(last)).weights().items():
        assert torch.equal(weight, saved[name]), name
    before = load_checkpoint(str(first)).weights()
    assert any(not torch.equal(weight, saved[name]) for name, weight in before.items())
    # The last step is the adapted model, to the last digit.
    page = evaluate_models(EvalRequest(models=[str(last)], against="base"))
    assert page == Path("eval/adapted-step-000008/report.html")
    file, report = load_results(page.parent / "results.json"), load_results(run / "results.json")
    assert [r.adapted for r in file.results] == [r.adapted for r in report.results]
    assert file.adapted["name"] == "adapted, step-000008"
    # What cannot be the model is refused by name.
    shutil.copytree(first, tmp_path / "step-000004")
    with pytest.raises(ModelError, match="a checkpoint outside of its run folder"):
        load_checkpoint(str(tmp_path / "step-000004"))
    (first / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"not complete: .*: name another checkpoint of the run"):
        load_checkpoint(str(first))


@pytest.mark.parametrize("kill_at", [1, 5])
def test_killed_and_resumed_ends_bit_equal(
    whole: Path, recipe_file: Path, tmp_path: Path, kill_at: int
) -> None:
    """Fault 5."""
    folder = tmp_path / "killed"
    process = forked(_slowly, recipe_file, folder)
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") >= kill_at):
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (folder / "model").exists()
    _finetune(folder / "recipe.yaml", folder, resume=True)
    assert _weights(folder) == _weights(whole)
    assert [line["step"] for line in _lines(folder)] == list(range(1, 9))
    assert [line["loss"] for line in _lines(folder)] == [line["loss"] for line in _lines(whole)]


@pytest.mark.parametrize(
    "overrides",
    [
        [
            "strategy={lora: {rank: 2, dropout: 0.2}}",
            "train.micro_batch_size=5",
            "objectives={contrastive: {}, image_anchor: {weight: 5}}",
            "anchor_texts={count: 32, per_step: 4}",
            "anchor_images={count: 8, per_step: 4}",
        ],
        [
            "strategy=locked_image",
            "objectives={contrastive: {}, anchor: {weight: 5}}",
            "anchor_texts={count: 32, per_step: 4}",
            "train.weight_average={decay: 0.9, start: 0.25}",
        ],
        [
            "strategy=locked_text",
            "train.projection_decay=1",
            "train.augmentation=crop",
            "train.mix={again: {path: CORPUS, share: 0.25}}",
        ],
        [
            "strategy={any_resolution: {patch_dropout: 0.5}}",
            "train.micro_batch_size=5",
            "train.augmentation=crop",
            "objectives={contrastive: {}, image_self_supervision: {}}",
        ],
    ],
)
def test_resumed_at_every_checkpoint_ends_bit_equal(
    recipe_file: Path, corpus: Path, tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 1."""
    overrides = [text.replace("CORPUS", str(corpus)) for text in overrides]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    _finetune(recipe_file, straight, *overrides)
    plain = step.compute_gradients
    taken = 0

    def stop_sometimes(*arguments: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken % 2 == 1:  # noted now, obeyed at the end of this step
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(*arguments)

    monkeypatch.setattr(step, "compute_gradients", stop_sometimes)
    for _ in range(10):
        try:
            _finetune(recipe_file, stopped, *overrides, resume=stopped.exists())
            break
        except Interrupted:
            taken = 1  # the first step of the next session goes through
    assert [line["loss"] for line in _lines(stopped)] == [line["loss"] for line in _lines(straight)]
    seconds = [line["seconds"] for line in _lines(stopped)]
    assert seconds == sorted(seconds)  # of all sessions together
    last = checkpoint.newest_checkpoint(stopped / "checkpoints")
    assert last is not None
    groups, _ = checkpoint.load(last)
    expected, _ = checkpoint.load(straight / "checkpoints" / last.name)
    assert groups.keys() == expected.keys()
    for name, tensors in groups.items():
        assert all(torch.equal(tensor, expected[name][key]) for key, tensor in tensors.items())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """Fault 7."""
    plain = step.compute_gradients
    monkeypatch.setattr(step, "compute_gradients", lambda *a: (os.kill(os.getpid(), number), plain(*a))[1])
    folder = tmp_path / "run"
    with pytest.raises(Interrupted) as caught:
        _finetune(recipe_file, folder)
    assert str(caught.value) == f"stopped at step 1 of 8; continue with --resume --run-dir {folder}"
    assert caught.value.code == code
    assert checkpoint.newest_checkpoint(folder / "checkpoints") == folder / "checkpoints" / "step-000001"


def test_a_changed_run_is_not_continued(whole: Path, recipe_file: Path, corpus: Path, tmp_path: Path) -> None:
    """Fault 10."""
    with pytest.raises(RecipeError) as recipe_error:
        _finetune(
            whole / "recipe.yaml",
            whole,
            "train.epochs=5",
            "strategy={full: {text_lr_factor: 0.5}}",
            resume=True,
        )
    assert str(recipe_error.value) == (
        "--resume: the recipe has changed since step-000008: strategy.full.text_lr_factor: None, now 0.5; "
        "train.epochs: 3.0, now 5.0"
    )
    other = make_corpus(tmp_path / "other")
    table = other / "metadata.csv"
    table.write_text(table.read_text().replace("a red square 8", "a red box 8", 1))
    text = (whole / "recipe.yaml").read_text().replace(str(corpus), str(other))
    (whole / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"corpus\.path"):  # another path is another recipe
        _finetune(whole / "recipe.yaml", whole, resume=True)
    # The same path with other content is another corpus.
    moved = tmp_path / "run"
    _finetune(recipe_file, moved, f"corpus.path={other}")
    table.write_text(table.read_text().replace("a blue square", "a blue box", 1))
    with pytest.raises(DataError) as corpus_error:
        _finetune(moved / "recipe.yaml", moved, resume=True)
    assert str(corpus_error.value).startswith("--resume: the corpus has changed since step-000008 (sha256 ")
    assert corpus_error.value.code == 3


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_not_finite_stops_before_the_step(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_every: int
) -> None:
    """Fault 18."""
    plain, seen = dual_encoder.DualEncoder.encode_image, []

    def break_third(self: Any, image: Any) -> Any:
        rows = plain(self, image)
        if rows.requires_grad:  # not the held-out items, which show what the base reaches
            seen.append(rows)
        if len(seen) == 3:
            rows = rows.clone()
            rows[5] = torch.nan
        return rows

    monkeypatch.setattr(dual_encoder.DualEncoder, "encode_image", break_third)
    with pytest.raises(DivergedError) as caught:
        _finetune(
            recipe_file,
            tmp_path / "run",
            f"train.log_every={log_every}",
            "train.save_every=1",
            "train.micro_batch_size=null",
        )
    monkeypatch.undo()
    assert caught.value.code == 6
    text = str(caught.value)
    assert text.startswith(
        "step 3: loss nan, gradient norm nan: stopped before the step, weights are unchanged; items: images/"
    )
    assert text.endswith("; lower train.learning_rate, then start again")
    assert text.count("images/") == 1  # the one row, not the whole batch
    saved = checkpoint.newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert saved is not None
    assert saved.name == "step-000002"
    _finetune(tmp_path / "run" / "recipe.yaml", tmp_path / "run", resume=True)


def test_a_full_disk_at_checkpoint_time(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 6."""
    plain = checkpoint._flush

    def full_at_four(path: Path) -> None:
        if "step-000004" in str(path) or ".staging-000004" in str(path):
            raise OSError(28, "No space left on device")
        plain(path)

    monkeypatch.setattr(checkpoint, "_flush", full_at_four)
    folder = tmp_path / "run"
    with pytest.raises(ModelError) as caught:
        _finetune(recipe_file, folder)
    assert str(caught.value) == (
        f"{folder}/checkpoints: cannot save step 4: the disk is full; the last complete checkpoint is step-000002; "
        "make room, then continue with --resume"
    )
    assert caught.value.code == 4


@pytest.mark.parametrize(
    ("strategy", "locked"), [("locked_image", "image"), ("locked_text", "text"), ("lora", "all")]
)
def test_locked_weights_stay_byte_identical(
    recipe_file: Path, tmp_path: Path, base: Path, strategy: str, locked: str
) -> None:
    """Fault 17."""
    _finetune(
        recipe_file, tmp_path / "run", f"strategy={strategy}", "probes=[zero_shot]", "train.weight_decay=0.5"
    )
    trained = models_loading.load_model(tmp_path / "run" / "model")
    before = models_loading.load_model(base).weights()
    after = {name.replace(".base_layer", ""): weight for name, weight in trained.weights().items()}
    for name, weight in before.items():
        side = name.split("/")[0]
        if side == locked or (locked == "all" and side in ("image", "text")):
            assert after[name].detach().numpy().tobytes() == weight.detach().numpy().tobytes(), name
    changed = [name for name in before if not torch.equal(after[name], before[name])]
    assert "scale/logit_scale" in changed
    if locked != "all":
        assert any(not name.startswith((locked, "scale")) for name in changed)
    if strategy == "lora":
        adapter = load_file(tmp_path / "run" / "model" / "adapter_model.safetensors")
        assert any("lora_B" in name and tensor.abs().max() > 0 for name, tensor in adapter.items())


@pytest.mark.parametrize("side", ["both", "image", "text"])
def test_dropout_acts_in_the_towers_that_learn(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    plain, seen = step.compute_gradients, set()

    def look(model: Any, seen_by: dual_encoder.DualEncoder, *rest: Any) -> Any:
        layers = [
            (name, module) for name, module in seen_by.named_modules() if "lora_dropout.default" in name
        ]
        seen.update(module.training for _, module in layers)
        locked = {"image": "text_model", "text": "vision_model"}.get(side)
        assert not any(m.training for n, m in seen_by.named_modules() if locked and f".{locked}." in n)
        return plain(model, seen_by, *rest)

    monkeypatch.setattr(step, "compute_gradients", look)
    _finetune(recipe_file, tmp_path / "run", f"strategy={{lora: {{rank: 2, dropout: 0.5, towers: {side}}}}}")
    assert seen == {True}


def test_one_process_says_for_all_where_a_run_goes_on(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each for itself, two might take different checkpoints, and train on as if nothing were wrong."""
    asked: list[object] = []

    def first(call: Any) -> Any:
        asked.append(getattr(call, "func", None))
        return call()

    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    monkeypatch.setattr(collectives, "on_first_process", first)
    _finetune(folder / "recipe.yaml", folder, resume=True)
    assert checkpointing_resume.find_checkpoint in asked


def test_a_strategy_that_refuses_leaves_the_folder_free(recipe_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(RecipeError, match="leave nothing to learn"):
        _finetune(recipe_file, folder, "strategy={prompt_learning: {context_tokens: 0}}")
    # The base has been measured, and that stays on record.
    assert [path.name for path in sorted(folder.iterdir())] == ["environment.json", "ledger.jsonl"]
    assert _finetune(recipe_file, folder) == folder / "report.html"
    assert len((folder / "ledger.jsonl").read_text().splitlines()) == 3


def test_a_retention_set_of_the_hub_is_asked_for(recipe_file: Path, tmp_path: Path) -> None:
    retention = "retention={path: lab/general, reader: hub, options: {revision: main}}"
    with pytest.raises(HubError, match=r"^data set lab/general: cannot be fetched"):
        _finetune(recipe_file, tmp_path / "run", retention)


def test_kept_features_give_the_weights_of_the_plain_path(recipe_file: Path, tmp_path: Path) -> None:
    for name, keep in (("kept", "true"), ("plain", "false")):
        _finetune(recipe_file, tmp_path / name, "strategy=locked_image", f"train.cache_features={keep}")
    kept, plain = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("kept", "plain"))
    for name, tensor in kept.items():
        assert torch.allclose(tensor, plain[name], atol=1e-5), name


def test_interpolation_is_chosen_on_validation_and_written(
    recipe_file: Path, tmp_path: Path, base: Path
) -> None:
    options = ["train.learning_rate=1e-3", "weight_interpolation={alphas: [0.5, 1.0]}"]
    _finetune(recipe_file, tmp_path / "run", *options)
    facts = load_results(tmp_path / "run" / "results.json").run["facts"]["interpolation"]
    assert set(facts["validation"]) == {"0.0", "0.5", "1.0"}  # the base first
    assert "general" not in facts
    last = checkpoint.newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert last is not None
    end = checkpoint.load(last)[0]["weights"]
    start = {name: weight.detach() for name, weight in models_loading.load_model(base).weights().items()}
    written = models_loading.load_model(tmp_path / "run" / "model").weights()
    name = "text/text_projection.weight"
    assert torch.allclose(written[name], torch.lerp(start[name], end[name], facts["alpha"]), atol=1e-6)


def test_two_launched_processes_train_what_one_does(recipe_file: Path, tmp_path: Path) -> None:
    """As users start them: --processes 2. Those of `accelerate launch` have the same environment."""
    options = ["strategy={lora: {rank: 2}}", "objectives={contrastive: {}, anchor: {weight: 5}}"]
    options += ["anchor_texts={count: 32, per_step: 4}", "train.micro_batch_size=3", "report.examples=true"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    _finetune(recipe_file, alone, *options)
    asked = ["finetune", "-q", "-r", str(recipe_file), "--run-dir", str(together), "--processes", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "domainclip", *asked, *options],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((together / "environment.json").read_text())["processes"] == 2
    assert done.stdout.count("report.html") == 1  # one process speaks
    pictures = [(folder / "report.html").read_text().count("<img") for folder in (alone, together)]
    assert pictures[0] == pictures[1] >= 6
    one, two = _lines(alone), _lines(together)
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], abs=1e-4)
    # The figures come from weights that agree to rounding, so they agree too.
    values = [load_results(folder / "results.json").results for folder in (alone, together)]
    assert [row.base for row in values[0]] == [row.base for row in values[1]]
    adapters = [load_file(folder / "model" / "adapter_model.safetensors") for folder in (alone, together)]
    assert adapters[0].keys() == adapters[1].keys()
    for name, tensor in adapters[0].items():
        assert torch.allclose(tensor, adapters[1][name], atol=2e-3), name
