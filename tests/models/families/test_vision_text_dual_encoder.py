from __future__ import annotations

from pathlib import Path

from domainclip.models.loading import load_model
from tests.support.tiny_models import tiny_dual_encoder


def test_a_vit_and_a_bert(tmp_path: Path) -> None:
    model = load_model(tiny_dual_encoder(tmp_path))
    assert model.family == "vision-text-dual-encoder"
    assert model.objective == "contrastive"
    sides = {name.split("/")[0] for name in model.weights()}
    assert sides == {"image", "text", "scale"}
    assert type(model.hf_base.vision_model).__name__ == "ViTModel"
    assert type(model.hf_base.text_model).__name__ == "BertModel"
