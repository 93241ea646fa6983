from __future__ import annotations

from pathlib import Path

import torch

from domainclip.models.loading import load_model
from tests.support.tiny_models import noise, stack, tiny_siglip2_naflex


def test_padding_patches_have_no_effect(tmp_path: Path) -> None:
    model = load_model(tiny_siglip2_naflex(tmp_path))
    batch = stack(model.image_preprocessor(image) for image in (noise(64, 64, 1), noise(90, 8, 2)))
    assert batch["pixels"].shape == (2, 16, 8 * 8 * 3)
    assert batch["grid"][1].prod() < 16
    other = {**batch, "pixels": batch["pixels"].clone()}
    other["pixels"][1, batch["grid"][1].prod() :] = 200
    torch.testing.assert_close(model.encode_image(other), model.encode_image(batch), atol=1e-6, rtol=0)


def test_the_aspect_ratio_is_preserved(tmp_path: Path) -> None:
    model = load_model(tiny_siglip2_naflex(tmp_path))
    image = noise(64, 16)
    wide, tall = model.image_preprocessor(image), model.image_preprocessor(image.rotate(90, expand=True))
    assert wide["grid"].tolist() == tall["grid"][::-1].tolist()
    assert model.image_size == (32, 32)


def test_the_tokenizer_lower_cases_by_itself(tmp_path: Path) -> None:
    model = load_model(tiny_siglip2_naflex(tmp_path))
    batch = model.text_tokenizer(["A CAT", "a cat"])
    assert list(batch) == ["input_ids"]
    assert batch["input_ids"].shape == (2, 64)
    assert torch.equal(*batch["input_ids"])
