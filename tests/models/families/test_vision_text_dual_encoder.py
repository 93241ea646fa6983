from __future__ import annotations

from pathlib import Path

from domainclip.models.loading import load_model
from tests.support.tiny_models import tiny_dual_encoder


def test_two_towers_of_their_own_make(tmp_path: Path) -> None:
    model = load_model(tiny_dual_encoder(tmp_path))
    assert model.family == "vision-text-dual-encoder"
    assert model.objective == "contrastive"
    parts = {name.split("/")[0] for name in model.weights()}
    assert parts == {"image", "text", "scale"}
    assert type(model.hf_base.vision_model).__name__ == "ViTModel"
    assert type(model.hf_base.text_model).__name__ == "BertModel"
