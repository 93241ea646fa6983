"""Anchor texts: general-domain texts made of the tokenizer's own words, and everyday captions.

An objective that protects the base against forgetting needs texts from outside the domain. The vocabulary of
every checkpoint gives them, in its own languages, and word lists of this project give English captions of
everyday life, so that none have to be downloaded or selected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from domainclip.config.recipe import AnchorTexts
from domainclip.data.text.everyday_captions import everyday_captions
from domainclip.errors import ModelError


def whole_words(tokenizer: Any) -> list[str]:
    """The lower-case words of three letters or more that are one token each, sorted."""
    plain = {
        text.strip()
        for text in tokenizer.batch_decode([[number] for number in tokenizer.get_vocab().values()])
    }
    words = sorted(word for word in plain if len(word) >= 3 and word.isalpha() and word == word.casefold())
    if not words:
        return []
    lengths = [len(ids) for ids in tokenizer(words, add_special_tokens=False)["input_ids"]]
    return [word for word, length in zip(words, lengths, strict=True) if length == 1]


def make_sentences(
    tokenizer: Any, anchors: AnchorTexts, seed: int, captions: Sequence[str] = ()
) -> list[str]:
    """`anchors.count` texts: the captions, a share `anchors.everyday` of the rest, then texts made of words.

    These are templates with one word or, for one in three, with two. A template with several places has
    another word in each: a longer text, as captions are.

    Raises: ModelError when the tokenizer has no whole words (a byte or character vocabulary).
    """
    known = whole_words(tokenizer)
    if len(known) < 2:
        raise ModelError(
            "the base's tokeniser has no whole words to make anchor texts of: leave out the objective anchor"
        )
    draw = np.random.Generator(np.random.Philox(key=seed))
    picks = draw.integers(len(known), size=(anchors.count, 2))
    pairs = draw.random(anchors.count) < 1 / 3
    forms = draw.integers(len(anchors.templates), size=anchors.count)
    places = max(template.count("{}") for template in anchors.templates)
    further = draw.integers(len(known), size=(anchors.count, max(0, places - 1)))
    texts = []
    for (first, second), two, form, rest in zip(picks, pairs, forms, further, strict=True):
        text = anchors.templates[form].replace(
            "{}", f"{known[first]} {known[second]}" if two else known[first], 1
        )
        for word in rest:
            text = text.replace("{}", known[word], 1)
        texts.append(text)
    everyday = round(anchors.everyday * max(0, anchors.count - len(captions)))
    return [*captions, *everyday_captions(everyday, seed), *texts][: anchors.count]


def drawn_indices(step: int, anchors: AnchorTexts, seed: int) -> list[int]:
    """The indices of the texts of a step: a pure function, so that a resumed run draws the same."""
    draw = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, step + 1]))
    count = min(anchors.per_step, anchors.count)
    return [int(i) for i in draw.choice(anchors.count, size=count, replace=False)]
