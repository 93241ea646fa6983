from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from domainclip.errors import ModelError
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from tests.support.tiny_models import tiny_clip

TEXTS = ["a red circle", "x", "a photo of two small cats on the left"]


def padded_to(model: DualEncoder, length: int) -> dict[str, torch.Tensor]:
    ids = model.text_tokenizer.hf_tokenizer(
        TEXTS, padding="max_length", max_length=length, return_tensors="pt"
    )
    return {"input_ids": ids["input_ids"]}


def text_gradients(model: DualEncoder, text: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    mixture = torch.linspace(-1, 1, model.width)
    (model.encode_text(text) @ mixture).square().sum().backward()
    return {n: w.grad.clone() for n, w in model.weights().items() if w.grad is not None}


@pytest.mark.parametrize("legacy", [False, True], ids=["first eos", "highest id"])
def test_trimmed_equals_padded_in_values_and_gradients(tmp_path: Path, legacy: bool) -> None:
    model = load_model(tiny_clip(tmp_path, legacy_eos=legacy))
    trimmed, padded = model.text_tokenizer(TEXTS), padded_to(model, 77)
    assert trimmed["input_ids"].shape == (3, max(model.text_tokenizer.count(TEXTS)))
    assert padded["input_ids"].shape == (3, 77)
    torch.testing.assert_close(model.encode_text(trimmed), model.encode_text(padded), atol=1e-6, rtol=0)
    short, long = text_gradients(model, trimmed), text_gradients(model, padded)
    assert short.keys() == long.keys()
    assert all(name.startswith("text/") for name in short)
    for name, gradient in short.items():
        torch.testing.assert_close(gradient, long[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("legacy", [False, True], ids=["first eos", "highest id"])
def test_both_rules_pool_at_the_end_of_a_truncated_text(tmp_path: Path, legacy: bool) -> None:
    model = load_model(tiny_clip(tmp_path, legacy_eos=legacy, positions=16))
    ids = model.text_tokenizer(["cat " * 40, "a dog"])["input_ids"]
    assert ids.shape == (2, 16)
    assert ids[0, -1] == model.text_tokenizer.hf_tokenizer.eos_token_id
    assert (ids[0] == model.text_tokenizer.hf_tokenizer.eos_token_id).sum() == 1
    # The token before the end determines the embedding: another one must change it.
    other = ids.clone()
    other[0, -2] = ids[1, 1]
    with torch.no_grad():
        first, second = model.encode_text({"input_ids": ids}), model.encode_text({"input_ids": other})
    assert (first[0] - second[0]).abs().max() > 1e-5
    assert torch.equal(first[1], second[1])


def test_an_end_of_text_id_that_the_tokenizer_does_not_produce(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path)
    edit_config(folder, "text_config", "eos_token_id", 5)
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert str(caught.value) == (
        f'base "{folder}": its tokenizer ends a text with the id 699, its text tower pools at the id 5; '
        "correct text_config.eos_token_id in config.json, or the tokenizer"
    )


def test_the_legacy_rule_needs_the_end_of_text_to_be_the_highest_id(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path, legacy_eos=True)
    # The start-of-text token takes the highest id instead.
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocab = tokenizer["model"]["vocab"]
    vocab["<|startoftext|>"], vocab["<|endoftext|>"] = vocab["<|endoftext|>"], vocab["<|startoftext|>"]
    tokenizer["added_tokens"] = []
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert str(caught.value) == (
        f'base "{folder}": its tokenizer ends a text with the id 698, its text tower pools at the id 699; '
        "correct text_config.eos_token_id in config.json, or the tokenizer"
    )


def test_different_activations_cause_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tiny_clip(tmp_path)
    with caplog.at_level(logging.WARNING, logger="domainclip"):
        load_model(folder)
        assert caplog.messages == []
        edit_config(folder, "vision_config", "hidden_act", "quick_gelu")
        load_model(folder)
    assert caplog.messages == [
        f'base "{folder}": its towers use different activations, quick_gelu for images and gelu for text; '
        "make sure that config.json names those it was trained with"
    ]


def edit_config(folder: Path, section: str, key: str, value: object) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config[section][key] = value
    file.write_text(json.dumps(config))
