"""Remembered token ids are what the tokenizer gives, in every family."""

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
    loaded = loading.load_model(make(tmp_path / "base"))
    remembered = TokenCache(loaded.text_tokenizer)
    for texts in (TEXTS, TEXTS[2:4], TEXTS[::-1]):
        expected, found = loaded.text_tokenizer(texts), remembered.batch(texts)
        assert found.keys() == expected.keys()
        for name, ids in expected.items():
            assert torch.equal(found[name], ids), name
    widths = [loaded.text_tokenizer([text])["input_ids"].shape[1] for text in TEXTS]
    assert remembered.lengths(TEXTS) == widths
    assert max(widths) == loaded.max_tokens


def test_each_text_is_tokenised_once(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = loading.load_model(base)
    seen: list[str] = []
    normalize = loaded.text_tokenizer.normalize
    monkeypatch.setattr(
        loaded.text_tokenizer, "normalize", lambda texts: seen.extend(texts) or normalize(texts)
    )
    remembered = TokenCache(loaded.text_tokenizer)
    remembered.add(TEXTS)
    remembered.batch(TEXTS)
    assert sorted(seen) == sorted(set(TEXTS))


def test_texts_beyond_what_is_remembered_are_tokenised_as_they_come(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_tokenizer, "_CAPACITY", 2)
    loaded = loading.load_model(base)
    remembered = TokenCache(loaded.text_tokenizer)
    assert torch.equal(remembered.batch(TEXTS)["input_ids"], loaded.text_tokenizer(TEXTS)["input_ids"])
    assert list(remembered.arrays) == TEXTS[:2]


def test_a_few_at_a_time_are_the_same_ids(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = loading.load_model(base)
    whole = TokenCache(loaded.text_tokenizer).batch(TEXTS)
    monkeypatch.setattr(text_tokenizer, "_BATCH", 2)
    calls: list[int] = []
    rows = TokenCache._arrays
    monkeypatch.setattr(
        TokenCache, "_arrays", lambda self, texts: calls.append(len(texts)) or rows(self, texts)
    )
    found = TokenCache(loaded.text_tokenizer).batch(TEXTS)
    assert [number for number in calls if number] == [2, 2, 1]  # five of the six are different
    assert all(torch.equal(found[name], ids) for name, ids in whole.items())
