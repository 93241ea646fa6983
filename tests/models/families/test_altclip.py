from __future__ import annotations

from pathlib import Path

import torch

from domainclip.models.loading import load_model
from tests.support.tiny_models import tiny_altclip


def test_positions_are_counted_from_behind_the_padding_index(tmp_path: Path) -> None:
    model = load_model(tiny_altclip(tmp_path))
    assert model.hf_base.config.text_config.max_position_embeddings == 66
    assert model.max_tokens == 64
    encoded = model.encode_text(model.text_tokenizer(["a cat " * 200]))
    torch.testing.assert_close(encoded.norm(dim=1), torch.ones(1))
