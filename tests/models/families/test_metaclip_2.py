from __future__ import annotations

from pathlib import Path

import torch

from domainclip.models.loading import load_model
from tests.support.tiny_models import tiny_metaclip_2


def test_pools_at_the_first_end_token_though_its_id_is_2(tmp_path: Path) -> None:
    model = load_model(tiny_metaclip_2(tmp_path))
    ids = model.text_tokenizer(["a cat", "a red circle on the left"])["input_ids"]
    assert model.text_tokenizer.hf_tokenizer.eos_token_id == 2
    assert ids.max() > 2
    assert ids[1, -1] == 2
    # The token after the end is padding, and no rule may reach it.
    other = ids.clone()
    other[0, -1] = ids.max()
    assert torch.equal(model.encode_text({"input_ids": other}), model.encode_text({"input_ids": ids}))
