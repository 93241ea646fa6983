from __future__ import annotations

import json
from pathlib import Path

import torch

from domainclip.models.loading import load_model
from domainclip.models.saving import save_model
from tests.support.tiny_models import tiny_siglip


def test_always_64_tokens_and_no_mask(tmp_path: Path) -> None:
    model = load_model(tiny_siglip(tmp_path))
    for texts in (["a"], ["a", "cat " * 100]):
        batch = model.text_tokenizer(texts)
        assert list(batch) == ["input_ids"]
        assert batch["input_ids"].shape == (len(texts), 64)
    assert batch["input_ids"][1, -1] == model.text_tokenizer.hf_tokenizer.eos_token_id


def test_trimming_would_change_the_embedding(tmp_path: Path) -> None:
    model = load_model(tiny_siglip(tmp_path))
    full = model.text_tokenizer(["a cat"])
    trimmed = {"input_ids": full["input_ids"][:, :8]}
    assert (model.encode_text(full) - model.encode_text(trimmed)).abs().max() > 1e-3


def test_case_and_punctuation_have_no_effect(tmp_path: Path) -> None:
    model = load_model(tiny_siglip(tmp_path))
    same = model.text_tokenizer(["a red cat", "A Red, CAT!"])["input_ids"]
    assert torch.equal(same[0], same[1])


def test_text_is_lower_cased_where_only_the_config_requires_it(tmp_path: Path) -> None:
    """The Gemma tokenizer of SigLIP 2 has `do_lower_case` in its config and ignores it."""
    folder = tiny_siglip(tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"] = None
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    cased = load_model(folder)
    assert (
        cased.text_tokenizer(["A CAT"])["input_ids"].tolist()
        != cased.text_tokenizer(["a cat"])["input_ids"].tolist()
    )
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "do_lower_case": True}))
    lower = load_model(folder)
    assert (
        lower.text_tokenizer(["A CAT"])["input_ids"].tolist()
        == lower.text_tokenizer(["a cat"])["input_ids"].tolist()
    )
    assert lower.text_tokenizer.count(["A CAT"]) == lower.text_tokenizer.count(["a cat"])
    save_model(lower, tmp_path / "saved")
    assert load_model(tmp_path / "saved").text_tokenizer.normalize(["A CAT"]) == ["a cat"]
