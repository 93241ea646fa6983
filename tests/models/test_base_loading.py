"""An adapter, or a run folder, as a base: merged into plain weights, with the bases before it on record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from domainclip.errors import ModelError
from domainclip.models.base_loading import load_base_model
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from domainclip.models.saving import save_model
from domainclip.report.model_facts import model_facts


def adapter(base: Path, folder: Path, seed: int) -> Path:
    """An adapter with an update that is not zero."""
    model = load_base_model(base)
    config = LoraConfig(r=2, target_modules=model.lora_targets("text", "attention"))
    model.hf_model = get_peft_model(model.hf_model, config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.weights().items():
            if ".lora_" in name:
                weight.normal_(0, 0.2)
    save_model(model, folder)
    return folder


def run_folder(model: Path, run: Path, base: Path) -> Path:
    shutil.copytree(model, run / "model")
    (run / "recipe.yaml").write_text(f"name: a\nbase: {{path: {base}}}\n")
    return run


def text(model: DualEncoder) -> torch.Tensor:
    with torch.no_grad():
        return model.encode_text(model.text_tokenizer(["a red circle", "a dog", "nebula"]))


def test_an_adapter_becomes_plain_weights(clip_folder: Path, tmp_path: Path) -> None:
    trained = adapter(clip_folder, tmp_path / "adapter", seed=1)
    base = load_base_model(trained)
    assert base.hf_model is base.hf_base
    assert base.trained_from == (str(clip_folder),)
    assert torch.allclose(text(base), text(load_model(trained)), atol=1e-6)
    # Negative control: the update is in the weights.
    assert not torch.allclose(text(base), text(load_model(clip_folder)), atol=1e-3)


def test_a_run_on_a_run(clip_folder: Path, tmp_path: Path) -> None:
    """An adapter that was trained on the adapted model of another run loads onto that model."""
    first = run_folder(adapter(clip_folder, tmp_path / "a", 1), tmp_path / "first", clip_folder)
    second = run_folder(adapter(first, tmp_path / "b", 2), tmp_path / "second", first)
    recorded = json.loads((second / "model" / "adapter_config.json").read_text())
    assert Path(recorded["base_model_name_or_path"]).parent == first
    base = load_base_model(second)
    assert base.trained_from == (str(first), str(clip_folder))
    by_hand = load_base_model(first)  # W + s B A of the first run, and then of the second
    delta = load_model(second)
    name = "text_model.encoder.layers.1.self_attn.q_proj"
    layer = delta.hf_base.get_submodule(name)
    low, high = (getattr(layer, f"lora_{side}")["default"].weight for side in "AB")
    expected = by_hand.hf_base.get_submodule(name).weight + layer.scaling["default"] * high @ low
    assert torch.allclose(base.hf_base.get_submodule(name).weight, expected, atol=1e-6)
    assert torch.allclose(text(base), text(delta), atol=1e-6)
    assert not torch.allclose(text(base), text(by_hand), atol=1e-3)


def test_the_report_names_the_run_and_what_it_was_trained_from(clip_folder: Path, tmp_path: Path) -> None:
    run = run_folder(adapter(clip_folder, tmp_path / "a", 1), tmp_path / "chest-1", clip_folder)
    facts = model_facts(load_base_model(run))
    assert facts["name"] == "chest-1"
    assert facts["trained_from"] == [clip_folder.name]  # no path: it may name persons and projects
    assert "trained_from" not in model_facts(load_base_model(clip_folder))


def test_recipes_that_name_each_other_end(clip_folder: Path, tmp_path: Path) -> None:
    run = run_folder(clip_folder, tmp_path / "run", tmp_path / "run")
    assert set(load_base_model(run).trained_from) == {str(run)}


def test_an_update_that_is_not_finite_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    trained = adapter(clip_folder, tmp_path / "adapter", seed=1)
    weights = load_file(trained / "adapter_model.safetensors")
    name = next(name for name in weights if ".lora_B" in name)
    save_file(
        weights | {name: torch.full_like(weights[name], float("nan"))}, trained / "adapter_model.safetensors"
    )
    with pytest.raises(ModelError, match="its adapter cannot be merged"):
        load_base_model(trained)


def test_a_run_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: a\n")
    with pytest.raises(ModelError) as caught:
        load_base_model(tmp_path)
    assert str(caught.value) == (
        f'base "{tmp_path}": a run that has no model yet: finish it: '
        f"domainclip finetune --resume --run-dir {tmp_path}"
    )
