from __future__ import annotations

from pathlib import Path

from domainclip.models.loading import load_model
from tests.support.tiny_models import tiny_chinese_clip


def test_padding_is_masked_and_the_config_sets_the_limit(tmp_path: Path) -> None:
    model = load_model(tiny_chinese_clip(tmp_path))
    batch = model.text_tokenizer(["一张红色的猫", "猫"])
    assert batch["attention_mask"].tolist() == [[1] * 8, [1] * 3 + [0] * 5]
    assert set(batch) == {"input_ids", "token_type_ids", "attention_mask"}
    assert model.max_tokens == 52
    assert model.text_tokenizer(["猫" * 99])["input_ids"].shape == (1, 52)
