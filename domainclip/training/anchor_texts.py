"""General sentences made of the tokeniser's own words: a sample of all that the base can speak of.

An objective that protects what the base knows needs text from outside the domain. Every checkpoint carries
such a vocabulary, in its own languages, so none has to be downloaded or chosen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from domainclip.config.recipe import AnchorTexts
from domainclip.errors import ModelError


def whole_words(tokenizer: Any) -> list[str]:
    """The words that are one token each, of three letters or more, in sorted order."""
    plain = {
        text.strip()
        for text in tokenizer.batch_decode([[number] for number in tokenizer.get_vocab().values()])
    }
    wanted = sorted(word for word in plain if len(word) >= 3 and word.isalpha() and word == word.casefold())
    if not wanted:
        return []
    lengths = [len(ids) for ids in tokenizer(wanted, add_special_tokens=False)["input_ids"]]
    return [word for word, length in zip(wanted, lengths, strict=True) if length == 1]


def make_sentences(tokenizer: Any, anchors: AnchorTexts, seed: int) -> list[str]:
    """`anchors.count` texts: a template around one word, or, one time in three, two.

    Raises: ModelError when the tokeniser has no whole words (a byte or character vocabulary).
    """
    known = whole_words(tokenizer)
    if len(known) < 2:
        raise ModelError(
            "the base's tokeniser has no whole words to make general sentences of: leave out the anchor"
        )
    draw = np.random.Generator(np.random.Philox(key=seed))
    picks = draw.integers(len(known), size=(anchors.count, 2))
    pairs = draw.random(anchors.count) < 1 / 3
    forms = draw.integers(len(anchors.templates), size=anchors.count)
    texts = []
    for (first, second), two, form in zip(picks, pairs, forms, strict=True):
        said = f"{known[first]} {known[second]}" if two else known[first]
        texts.append(anchors.templates[form].replace("{}", said))
    return texts


def drawn_indices(step: int, anchors: AnchorTexts, seed: int) -> list[int]:
    """Which sentences a step uses: a pure function, so that a resumed run draws the same."""
    draw = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, step + 1]))
    count = min(anchors.per_step, anchors.count)
    return [int(i) for i in draw.choice(anchors.count, size=count, replace=False)]
