from __future__ import annotations

from pathlib import Path

from domainclip.models.loading import load_model
from tests.support.tiny_models import tiny_dual_encoder


def test_two_towers_of_their_own_make(tmp_path: Path) -> None:
    towers = load_model(tiny_dual_encoder(tmp_path))
    assert towers.family == "vision-text-dual-encoder"
    assert towers.objective == "contrastive"
    parts = {name.split("/")[0] for name in towers.weights()}
    assert parts == {"image", "text", "scale"}
    assert type(towers.plain.vision_model).__name__ == "ViTModel"
    assert type(towers.plain.text_model).__name__ == "BertModel"
