"""General sentences: real words of the tokeniser, the same on every day."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from domainclip.config.recipe import AnchorTexts
from domainclip.data.text import anchor_texts
from domainclip.data.text.everyday_captions import everyday_captions
from domainclip.errors import ModelError
from domainclip.models import loading
from tests.support.tiny_models import WORDS, tiny_chinese_clip, tiny_siglip


@pytest.fixture
def tokenizer(base: Path) -> Any:
    return loading.load_model(base).text_tokenizer.hf_tokenizer


def test_words_are_whole_words(tokenizer: Any) -> None:
    found = anchor_texts.whole_words(tokenizer)
    assert {"circle", "bird"} <= set(found)
    assert set(found) <= set(WORDS)  # no piece of a word
    assert "an" not in found  # too short to mean much


@pytest.mark.parametrize("make", [tiny_siglip, tiny_chinese_clip])
def test_other_vocabularies(tmp_path: Path, make: Any) -> None:
    assert {"circle"} <= set(
        anchor_texts.whole_words(loading.load_model(make(tmp_path / "base")).text_tokenizer.hf_tokenizer)
    )


def test_sentences_are_a_pure_function_of_the_seed(tokenizer: Any) -> None:
    settings = AnchorTexts(
        count=200, per_step=20, everyday=0, templates=["{}", "a photo of a {}", "a {} in a picture"]
    )
    first = anchor_texts.make_sentences(tokenizer, settings, 5)
    assert first == anchor_texts.make_sentences(tokenizer, settings, 5)
    assert first != anchor_texts.make_sentences(tokenizer, settings, 6)
    assert len(first) == 200
    bare = [text for text in first if not text.startswith(("a photo of a ", "a "))]
    shares = sum(len(text.split()) == 2 for text in bare) / len(bare)
    assert 0.15 < shares < 0.5  # one time in three, two words


def test_what_a_step_draws(tokenizer: Any) -> None:
    settings = AnchorTexts(count=50, per_step=20)
    assert anchor_texts.drawn_indices(3, settings, 0) == anchor_texts.drawn_indices(3, settings, 0)
    assert anchor_texts.drawn_indices(3, settings, 0) != anchor_texts.drawn_indices(4, settings, 0)
    assert len(set(anchor_texts.drawn_indices(3, settings, 0))) == 20
    assert max(max(anchor_texts.drawn_indices(step, settings, 0)) for step in range(20)) == 49


def test_a_vocabulary_without_words() -> None:
    class Bytes:
        def get_vocab(self) -> dict[str, int]:
            return {"a": 0, "b": 1}

        def batch_decode(self, rows: list[list[int]]) -> list[str]:
            return ["ab"[row[0]] for row in rows]

    with pytest.raises(ModelError) as caught:
        anchor_texts.make_sentences(Bytes(), AnchorTexts(), 0)
    assert str(caught.value) == (
        "the base's tokeniser has no whole words to make anchor texts of: leave out the objective anchor"
    )


def test_a_template_with_several_places_has_another_word_in_each(tokenizer: Any) -> None:
    settings = AnchorTexts(count=40, everyday=0, templates=["{} near {} on {}"])
    texts = anchor_texts.make_sentences(tokenizer, settings, 5)
    parts = [re.fullmatch("(.+) near (.+) on (.+)", text) for text in texts]
    assert all(parts)
    words = [part.groups() for part in parts if part]
    assert sum(len(set(three)) == 3 for three in words) > len(words) / 2
    # The first place is drawn as it is where it is the only one.
    alone = anchor_texts.make_sentences(
        tokenizer, AnchorTexts(count=40, everyday=0, templates=["{} near"]), 5
    )
    assert [f"{three[0]} near" for three in words] == alone


def test_a_share_of_the_texts_are_everyday_captions(tokenizer: Any) -> None:
    words = anchor_texts.make_sentences(tokenizer, AnchorTexts(count=40, everyday=0), 5)
    texts = anchor_texts.make_sentences(tokenizer, AnchorTexts(count=40, everyday=0.25), 5, ["My caption."])
    everyday = everyday_captions(10, 5)
    assert texts == ["My caption.", *everyday, *words[:29]]  # a quarter of the 39 that are made
