"""Cached token ids equal those of the tokenizer, in every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from domainclip.models import loading, text_tokenizer
from domainclip.models.text_tokenizer import TokenCache
from tests.support import tiny_models

TEXTS = ["a red circle", "Two, small squares " * 60, "cat", "", "a red circle", "no effusion with pneumonia"]


@pytest.mark.parametrize("make", tiny_models.FAMILIES)
def test_the_same_ids_as_the_tokenizer(make: Any, tmp_path: Path) -> None:
    model = loading.load_model(make(tmp_path / "base"))
    cache = TokenCache(model.text_tokenizer)
    for texts in (TEXTS, TEXTS[2:4], TEXTS[::-1]):
        expected, batch = model.text_tokenizer(texts), cache.batch(texts)
        assert batch.keys() == expected.keys()
        for name, ids in expected.items():
            assert torch.equal(batch[name], ids), name
    widths = [model.text_tokenizer([text])["input_ids"].shape[1] for text in TEXTS]
    assert cache.lengths(TEXTS) == widths
    assert max(widths) == model.max_tokens


def test_each_text_is_tokenized_once(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loading.load_model(base)
    normalized: list[str] = []
    normalize = model.text_tokenizer.normalize
    monkeypatch.setattr(
        model.text_tokenizer, "normalize", lambda texts: normalized.extend(texts) or normalize(texts)
    )
    cache = TokenCache(model.text_tokenizer)
    cache.add(TEXTS)
    cache.batch(TEXTS)
    assert sorted(normalized) == sorted(set(TEXTS))


def test_texts_beyond_the_capacity_are_tokenized_at_each_use(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_tokenizer, "_CAPACITY", 2)
    model = loading.load_model(base)
    cache = TokenCache(model.text_tokenizer)
    assert torch.equal(cache.batch(TEXTS)["input_ids"], model.text_tokenizer(TEXTS)["input_ids"])
    assert list(cache.arrays) == TEXTS[:2]


def test_small_calls_give_the_same_ids(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loading.load_model(base)
    whole = TokenCache(model.text_tokenizer).batch(TEXTS)
    monkeypatch.setattr(text_tokenizer, "_BATCH", 2)
    calls: list[int] = []
    rows = TokenCache._arrays
    monkeypatch.setattr(
        TokenCache, "_arrays", lambda self, texts: calls.append(len(texts)) or rows(self, texts)
    )
    batch = TokenCache(model.text_tokenizer).batch(TEXTS)
    assert [number for number in calls if number] == [2, 2, 1]  # five of the six are different
    assert all(torch.equal(batch[name], ids) for name, ids in whole.items())
