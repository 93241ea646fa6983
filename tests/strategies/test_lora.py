"""LoRA: starts as the base, learns only the adapter, and loads in plain peft."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import CLIPModel

from domainclip import towers
from domainclip.strategies.lora import Lora
from tests.tiny import tiny_chinese_clip, tiny_dual_encoder, tiny_siglip


def _embeddings(loaded: towers.Towers) -> tuple[torch.Tensor, torch.Tensor]:
    height, width = loaded.image_size
    pixels = torch.randint(
        0, 256, (3, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        return loaded.encode_image({"pixels": pixels}), loaded.encode_text(
            loaded.tokenise(["a red circle", "a dog"])
        )


def _trained(loaded: towers.Towers, strategy: Lora) -> towers.Towers:
    """With an adapter that says something, and a scale that has moved."""
    strategy.apply(loaded)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in loaded.weights().items():
            if ".lora_B." in name:
                weight.normal_(0, 0.1)
            elif name.startswith("scale"):
                weight.add_(0.5)
    return loaded.eval()


def test_starts_as_the_base(base: Path) -> None:
    before = _embeddings(towers.load(base).eval())
    loaded = towers.load(base).eval()
    Lora(rank=2).apply(loaded)
    assert all(torch.equal(a, b) for a, b in zip(before, _embeddings(loaded.eval()), strict=True))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2 * 2 * 4 * 2),  # two towers, two layers, q k v o, A and B
        ({"towers": "text"}, 2 * 4 * 2),
        ({"towers": "image", "last_layers": 1}, 4 * 2),
        ({"targets": "attention+mlp"}, 2 * 2 * 6 * 2),
    ],
)
def test_what_learns(base: Path, options: dict[str, object], expected: int) -> None:
    loaded = towers.load(base)
    factors = Lora(rank=2, **options).apply(loaded)  # type: ignore[arg-type]
    learning = {name for name, factor in factors.items() if factor > 0}
    assert len(learning - {"scale/logit_scale"}) == expected
    assert "scale/logit_scale" in learning
    assert learning == {name for name, w in loaded.weights().items() if w.requires_grad}


@pytest.mark.parametrize("make", [tiny_siglip, tiny_chinese_clip, tiny_dual_encoder])
def test_every_family_has_its_layers(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    loaded = towers.load(make(tmp_path / "base"))
    factors = Lora(rank=2, targets="attention+mlp").apply(loaded)
    learning = [name for name, factor in factors.items() if factor > 0]
    assert sum(name.startswith("image/") for name in learning) >= 2 * 6 * 2
    assert sum(name.startswith("text/") for name in learning) >= 2 * 6 * 2


def test_saved_it_loads_in_plain_peft_and_in_ours(base: Path, tmp_path: Path) -> None:
    loaded = _trained(towers.load(base), Lora(rank=2))
    image, text = _embeddings(loaded)
    loaded.save(tmp_path / "model")
    again = towers.load(tmp_path / "model").eval()
    assert all(torch.equal(a, b) for a, b in zip((image, text), _embeddings(again), strict=True))
    assert torch.equal(again.scale, loaded.scale)  # peft drops it; it stands beside the adapter
    plain = PeftModel.from_pretrained(CLIPModel.from_pretrained(base), tmp_path / "model").eval()
    with torch.no_grad():
        tokens = loaded.tokenise(["a red circle", "a dog"])
        found = torch.nn.functional.normalize(plain.get_text_features(**tokens).pooler_output, dim=-1)
    assert torch.allclose(found, text, atol=1e-6)
    # Negative control: the adapter says something.
    assert not torch.allclose(text, _embeddings(towers.load(base).eval())[1], atol=1e-3)
