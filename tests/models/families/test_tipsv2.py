"""TIPSv2: as transformers computes it, with a scale in place of the temperature, and trained in every part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from domainclip.models.base_loading import load_base_model
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from domainclip.models.saving import save_model
from domainclip.strategies.full import Full
from domainclip.strategies.locked_image import LockedImage
from domainclip.strategies.lora import Lora
from tests.support.tiny_models import noise, stack, tiny_tipsv2

TEXTS = ["a red circle", "A CAT", "x", "a small round galaxy with red and blue stars " * 10]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_tipsv2(tmp_path / "base")


def _images(model: DualEncoder) -> dict[str, Tensor]:
    return stack(model.image_preprocessor(noise(50 + i, 40, i)) for i in range(4))


@torch.no_grad()
def _outputs(model: DualEncoder) -> tuple[Tensor, Tensor]:
    return model.encode_image(_images(model)), model.encode_text(model.text_tokenizer(TEXTS))


@torch.no_grad()
def _logits(folder: Path, model: DualEncoder) -> Tensor:
    """Of plain transformers, with texts padded to their full length, as its processor does."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    options: dict[str, Any] = {
        "padding": "max_length",
        "truncation": True,
        "max_length": 64,
        "return_tensors": "pt",
    }
    plain = transformers.AutoModel.from_pretrained(folder).eval()
    pixels = model.pixel_inputs(_images(model))["pixel_values"]
    logits: Tensor = plain(pixel_values=pixels, **tokenizer(TEXTS, **options)).logits_per_image
    return logits


def test_logits_equal_those_of_transformers(folder: Path) -> None:
    model = load_model(folder)
    image, text = _outputs(model)
    assert (model.width, model.max_tokens, model.objective) == (32, 64, "contrastive")
    torch.testing.assert_close(
        (model.scale * image @ text.T).detach(), _logits(folder, model), atol=1e-4, rtol=1e-5
    )
    assert model.scale.item() == pytest.approx(1 / 0.005065968260169029)


def test_pixels_are_rescaled_only(folder: Path) -> None:
    pixels = load_model(folder)
    values = pixels.pixel_inputs(_images(pixels))["pixel_values"]
    assert 0 <= values.min() < 0.1
    assert 0.9 < values.max() <= 1
    assert pixels.image_preprocessor.resample == 2


def test_a_processor_without_options_has_those_of_the_family(tmp_path: Path) -> None:
    folder = tiny_tipsv2(tmp_path)
    file = folder / "preprocessor_config.json"
    file.write_text(
        json.dumps({"image_processor_type": "Tipsv2ImageProcessor", "size": {"height": 32, "width": 32}})
    )
    preprocessor = load_model(folder).image_preprocessor
    assert (preprocessor.resample, preprocessor.mean, preprocessor.resize) == (2, (0.0,) * 3, (32, 32))


@pytest.mark.parametrize(
    "strategy", [Lora(rank=2), LockedImage(), Full()], ids=lambda one: type(one).__name__
)
def test_trained_and_saved_for_plain_transformers(folder: Path, tmp_path: Path, strategy: Any) -> None:
    model = load_model(folder)
    before = _outputs(model)
    factors = strategy.learning_rates(model)
    assert factors["image/vision_model.embeddings.mask_token"] == 0
    images, texts = _images(model), model.text_tokenizer(TEXTS)
    trained = {name: weight for name, weight in model.weights().items() if weight.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    for _ in range(2):  # the first moves B of an adapter alone
        optimizer.zero_grad()
        image, text, scale, _ = model(images, texts)
        torch.nn.functional.cross_entropy(scale * image @ text.T, torch.arange(4)).backward()
        assert all(weight.grad is not None for weight in trained.values())
        optimizer.step()
    after = _outputs(model)
    assert not torch.allclose(after[1], before[1], atol=1e-4)
    save_model(model, tmp_path / "saved")
    plain = load_base_model(tmp_path / "saved")
    save_model(plain, tmp_path / "plain")
    assert plain.scale.item() == pytest.approx(model.scale.item(), rel=1e-5)
    image, text = after
    torch.testing.assert_close(
        (model.scale * image @ text.T).detach(), _logits(tmp_path / "plain", model), atol=1e-3, rtol=1e-4
    )


def test_frozen_layers_are_skipped(folder: Path) -> None:
    model = load_model(folder)
    Full(last_layers=1).learning_rates(model)
    images, texts = _images(model), model.text_tokenizer(TEXTS)
    with torch.no_grad():
        hidden = model.frozen_hidden_states("image", images)
        assert torch.allclose(model.encode_image({"hidden": hidden}), _outputs(model)[0], atol=1e-6)
        hidden = model.frozen_hidden_states("text", texts)
        assert torch.allclose(model.encode_text({**texts, "hidden": hidden}), _outputs(model)[1], atol=1e-6)


def test_a_map_of_patches_is_refused(folder: Path) -> None:
    assert not load_model(folder).has_token_embeddings("image")  # two tokens in front: which patch is first?
