from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import AutoPeftModel, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor

from domainclip.errors import ModelError
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from domainclip.models.saving import save_model
from tests.support.tiny_models import (
    noise,
    stack,
    tiny_clip,
    tiny_dual_encoder,
    tiny_siglip,
    tiny_siglip2_naflex,
)

TEXTS = ["a red circle", "two small cats on the left"]
IMAGES = [noise(40, 32, 1), noise(31, 65, 2)]


def embed(model: DualEncoder) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        image = model.encode_image(stack(model.image_preprocessor(image) for image in IMAGES))
        return image, model.encode_text(model.text_tokenizer(TEXTS))


def perturb(model: DualEncoder, pattern: str) -> None:
    """Change every weight whose name contains the pattern."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.weights().items():
            if pattern in name:
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.3)


def adapt(model: DualEncoder, **options: Any) -> DualEncoder:
    targets = [name for modality in ("image", "text") for name in model.lora_targets(modality, "attention")]
    model.hf_model = get_peft_model(model.hf_model, LoraConfig(r=2, target_modules=targets, **options))
    perturb(model, "lora_")
    return model


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


@pytest.mark.parametrize("make", [tiny_clip, tiny_siglip, tiny_siglip2_naflex, tiny_dual_encoder])
def test_a_plain_folder_is_loaded_by_transformers_and_by_load_model(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    model = load_model(make(tmp_path / "base"))
    perturb(model, "projection")
    model.hf_base.logit_scale.data.fill_(3.25)
    save_model(model, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert again.fingerprint("all") == model.fingerprint("all")
    assert again.image_preprocessor == model.image_preprocessor
    assert again.max_tokens == model.max_tokens
    for ours, theirs in zip(embed(again), embed(model), strict=True):
        assert torch.equal(ours, theirs)
    hf_model = transformers.AutoModel.from_pretrained(tmp_path / "saved")
    assert type(hf_model) is type(model.hf_base)
    assert hf_model.logit_scale.flatten().tolist() == [3.25]
    assert hf_model.logit_scale.shape == model.hf_base.logit_scale.shape


def test_plain_transformers_gives_the_same_embeddings(tmp_path: Path) -> None:
    model = load_model(tiny_clip(tmp_path / "base"))
    perturb(model, "projection")
    save_model(model, tmp_path / "saved")
    hf_model = transformers.CLIPModel.from_pretrained(tmp_path / "saved").eval()
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "saved", backend="pil")
    with torch.no_grad():
        out = hf_model(**processor(text=TEXTS, images=IMAGES, padding=True, return_tensors="pt"))
    image, text = embed(model)
    torch.testing.assert_close(out.image_embeds, image, atol=1e-6, rtol=0)
    torch.testing.assert_close(out.text_embeds, text, atol=1e-6, rtol=0)


@pytest.mark.parametrize("make", [tiny_clip, tiny_siglip])
def test_an_adapter_is_loaded_with_scale_and_bias(make: Callable[..., Path], tmp_path: Path) -> None:
    base = make(tmp_path / "base")
    model = adapt(load_model(base))
    model.hf_base.logit_scale.data.fill_(3.5)
    if model.bias is not None:
        model.hf_base.logit_bias.data.fill_(-4.25)
    save_model(model, tmp_path / "adapter")
    again = load_model(tmp_path / "adapter")
    assert isinstance(again.hf_model, PeftModel)
    assert again.base == str(base)
    assert again.scale.item() == model.scale.item()
    assert again.max_log_scale == model.max_log_scale
    assert (again.bias is None) == (model.bias is None)
    assert again.bias is None or again.bias.item() == -4.25
    for ours, theirs, before in zip(embed(again), embed(model), embed(load_model(base)), strict=True):
        assert torch.equal(ours, theirs)
        assert (ours - before).abs().max() > 1e-3
    save_model(again, tmp_path / "again")
    assert hashes(tmp_path / "again") == hashes(tmp_path / "adapter")


def test_the_files_of_an_adapter(tmp_path: Path) -> None:
    base = tiny_siglip(tmp_path / "base")
    model = load_model(base)
    model.revision = "0123abc"
    save_model(adapt(model), tmp_path / "adapter")
    assert sorted(hashes(tmp_path / "adapter")) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "calibration.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    assert config["revision"] == "0123abc"
    assert config["inference_mode"] is True
    assert config["target_modules"] == sorted(config["target_modules"])
    scalars = load_file(tmp_path / "adapter" / "calibration.safetensors")
    assert {name: value.shape for name, value in scalars.items()} == {"logit_bias": (), "logit_scale": ()}


def test_plain_peft_loads_the_adapter(tmp_path: Path) -> None:
    base = tiny_clip(tmp_path / "base")
    model = adapt(load_model(base))
    save_model(model, tmp_path / "adapter")
    hf_model = PeftModel.from_pretrained(transformers.CLIPModel.from_pretrained(base), tmp_path / "adapter")
    with torch.no_grad():
        theirs = (
            hf_model.get_base_model().eval().get_text_features(**model.text_tokenizer(TEXTS)).pooler_output
        )
    torch.testing.assert_close(torch.nn.functional.normalize(theirs, dim=-1), embed(model)[1])


def test_peft_finds_the_base_of_an_adapter_by_itself(tmp_path: Path) -> None:
    save_model(adapt(load_model(tiny_siglip(tmp_path / "base"))), tmp_path / "adapter")
    hf_model = AutoPeftModel.from_pretrained(str(tmp_path / "adapter"))
    assert isinstance(hf_model.get_base_model(), transformers.SiglipModel)


def test_a_merged_adapter_is_a_plain_model(tmp_path: Path) -> None:
    model = adapt(load_model(tiny_clip(tmp_path / "base")))
    before = embed(model)
    model.hf_model = model.hf_model.merge_and_unload()
    save_model(model, tmp_path / "plain")
    for merged, adapted in zip(embed(load_model(tmp_path / "plain")), before, strict=True):
        torch.testing.assert_close(merged, adapted, atol=1e-5, rtol=0)


def test_modules_that_peft_saves_whole_are_loaded(tmp_path: Path) -> None:
    model = adapt(load_model(tiny_clip(tmp_path / "base")), modules_to_save=["text_projection"])
    perturb(model, "modules_to_save")
    save_model(model, tmp_path / "adapter")
    for again, saved in zip(embed(load_model(tmp_path / "adapter")), embed(model), strict=True):
        assert torch.equal(again, saved)


def test_a_trained_weight_that_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    model = adapt(load_model(tiny_clip(tmp_path / "base")))
    model.set_trainable(
        [(".*lora_.*", 1.0), ("text/text_projection.weight", 1.0), ("scale/.*", 1.0), (".*", 0.0)]
    )
    with pytest.raises(ModelError) as caught:
        save_model(model, tmp_path / "adapter")
    assert str(caught.value) == (
        'the weight "text/text_projection.weight" is trained, but no adapter holds it; take plain weights as base'
    )


def test_the_last_call_of_the_tokenizer_is_not_saved(tmp_path: Path) -> None:
    model = load_model(tiny_clip(tmp_path / "base"))
    save_model(model, tmp_path / "before")
    model.text_tokenizer(TEXTS)
    save_model(model, tmp_path / "after")
    assert hashes(tmp_path / "before") == hashes(tmp_path / "after")


def test_no_local_path_is_saved(tmp_path: Path) -> None:
    save_model(load_model(tiny_clip(tmp_path / "Hospital-7")), tmp_path / "saved")
    assert [f.name for f in (tmp_path / "saved").iterdir() if b"Hospital-7" in f.read_bytes()] == []


def test_saving_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    transformers.logging.set_verbosity_warning()
    transformers.logging.enable_progress_bar()
    try:
        folder = tiny_clip(tmp_path / "base")
        capfd.readouterr()
        save_model(load_model(folder), tmp_path / "saved")
        assert capfd.readouterr() == ("", "")
        assert transformers.logging.is_progress_bar_enabled()
        assert transformers.logging.get_verbosity() == transformers.logging.WARNING
    finally:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
