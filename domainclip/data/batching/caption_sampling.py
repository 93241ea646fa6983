"""The captions that an item may show, and the one that an epoch shows: pure functions of the seed.

A draw chooses between captions of the corpus, offline rewrites and captions made of the labels; then the
language; then one of its captions; then a sentence or a window of it. All of that is one list of texts with
a probability each, made once, so that pairs which may show the same text are known beforehand.
"""

from __future__ import annotations

import json
from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, zip_longest
from typing import TYPE_CHECKING

from domainclip import seeding
from domainclip.data.batching.item_columns import derived_column
from domainclip.data.text.captions import REWRITES
from domainclip.data.text.languages import UNSPACED, script
from domainclip.data.text.sentences import split_sentences

if TYPE_CHECKING:
    from datasets import Dataset

    from domainclip.data.text.captions import Captions


@dataclass(frozen=True)
class TokenLimit:
    """The length of text that the base reads."""

    count_tokens: Callable[[list[str]], Sequence[int]]  # before truncation, special tokens included
    max_tokens: int


@dataclass(frozen=True)
class CaptionPool:
    """All texts that an item may show, and the probability of each; None: equal ones."""

    texts: list[str]
    probabilities: list[float] | None = None


def caption_pools(
    items: Dataset, options: Captions, limit: TokenLimit | None = None
) -> Sequence[CaptionPool]:
    """The caption pool of each training item; `limit` is required for windows only."""
    columns = ("texts", "language", "labels", "meta")
    return derived_column(items, columns, partial(_pool, options=options, limit=limit))


def choose_caption(pool: CaptionPool, seed: int, epoch: int, item: int | str) -> int:
    """The index of the text in its pool that an item shows in an epoch."""
    if pool.probabilities is None:
        return seeding.choose(seed, epoch, item, len(pool.texts))
    draw = seeding.stable(seed, epoch, item, "caption") / 2**64
    return min(bisect(list(accumulate(pool.probabilities)), draw), len(pool.texts) - 1)


def caption_segments(text: str, options: Captions) -> list[str]:
    """The texts that one caption may be shown as, before truncation: its sentences, or itself."""
    return (split_sentences(text) or [text]) if options.policy == "sentence" else [text]


def _pool(
    texts: list[str],
    languages: list[str],
    labels: list[str],
    meta: str,
    options: Captions,
    limit: TokenLimit | None,
) -> CaptionPool:
    if len(texts) == 1 and not _divides_captions(options):  # most of a large corpus
        return CaptionPool(texts)
    # A third-party reader may name no languages.
    captions = dict(zip_longest(texts, languages[: len(texts)], fillvalue=""))
    originals = _caption_probabilities(captions, options)
    rewrites = dict(json.loads(meta).get(REWRITES, ())) if options.rewrites else {}
    reworded = _caption_probabilities(rewrites, options)
    segments = _segment_probabilities(_mix(originals, reworded, options.rewrite_share), options, limit)
    pool = _mix(segments, _label_captions(labels, options), options.template_share)
    shares = list(pool.values())
    # Equal probabilities are a plain choice, the same draw as where no share is configured.
    equal = not shares or max(shares) - min(shares) < 1e-9
    return CaptionPool(list(pool) or [""], None if equal else shares)


def _divides_captions(options: Captions) -> bool:
    """Whether an item with one caption may show another text than that."""
    divided = options.policy == "sentence" or options.overlong == "window"
    return bool(divided or options.rewrites or options.templates)


def _mix(first: dict[str, float], second: dict[str, float], share: float) -> dict[str, float]:
    """Both distributions, the second with its share; an empty one leaves its share to the other."""
    if not first or not second:
        return first or second
    mixed = {text: (1 - share) * first.get(text, 0) + share * second.get(text, 0) for text in first | second}
    return {text: p for text, p in mixed.items() if p > 0}


def _caption_probabilities(language_of: Mapping[str, str], options: Captions) -> dict[str, float]:
    """The probability of each text: first the language, then one of its texts (policy first: the first)."""
    by_language: defaultdict[str, list[str]] = defaultdict(list)
    for text, language in language_of.items():
        if text:
            by_language["" if options.languages == "natural" else language].append(text)
    weights = {
        language: options.languages.get(language, 0.0) if isinstance(options.languages, dict) else 1.0
        for language in by_language
    }
    if not sum(weights.values()):  # no caption in the weighted languages: better another language than none
        weights = dict.fromkeys(by_language, 1.0)
    shares: dict[str, float] = {}
    for language, texts in by_language.items():
        choices = texts[:1] if options.policy == "first" else texts
        shares |= {text: weights[language] / sum(weights.values()) / len(choices) for text in choices}
    return {text: share for text, share in shares.items() if share > 0}


def _label_captions(labels: Sequence[str], options: Captions) -> dict[str, float]:
    """Captions made of the labels, equally probable [arXiv:2412.10372]."""
    templates = options.templates
    captions = [
        template.replace("{}", label)
        for label in labels
        for template in (templates if isinstance(templates, list) else templates.get(label, []))
    ]
    return {text: 1 / len(set(captions)) for text in captions}


def _segment_probabilities(
    texts: dict[str, float], options: Captions, limit: TokenLimit | None
) -> dict[str, float]:
    """The probability of each text spread over its segments: its sentences, or the windows that fit."""
    spread: defaultdict[str, float] = defaultdict(float)
    for text, share in texts.items():
        segments = caption_segments(text, options)
        if options.overlong == "window" and limit is not None:
            windows = (window for segment in segments for window in _windows(segment, options, limit))
            segments = list(dict.fromkeys(windows))
        for segment in segments:
            spread[segment] += share / len(segments)
    return dict(spread)


def _windows(text: str, options: Captions, limit: TokenLimit) -> list[str]:
    """Runs of whole sentences that fit, from each sentence on as far as they reach; none inside another."""
    max_tokens = min(limit.max_tokens, options.max_tokens or limit.max_tokens)
    special_tokens = limit.count_tokens([""])[0]
    if limit.count_tokens([text])[0] <= max_tokens:
        return [text]
    parts = [
        part
        for sentence in split_sentences(text) or [text]
        for part in _split_to_fit(sentence, max_tokens, limit)
    ]
    lengths = [n - special_tokens for n in limit.count_tokens(parts)]
    windows, reached = [], 0
    for start in range(len(parts)):
        end, used = start, special_tokens
        while end < len(parts) and (end == start or used + lengths[end] <= max_tokens):
            used += lengths[end]
            end += 1
        if end > reached:
            windows.append(("" if script(text) in UNSPACED else " ").join(parts[start:end]))
            reached = end
    return windows


def _split_to_fit(text: str, max_tokens: int, limit: TokenLimit) -> list[str]:
    """A sentence that is too long by itself, halved between words until each part fits."""
    if limit.count_tokens([text])[0] <= max_tokens or len(text) < 2:
        return [text]
    words = text.split()
    if len(words) > 1:
        halves = [" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])]
    else:  # a script without spaces
        halves = [text[: len(text) // 2], text[len(text) // 2 :]]
    return [part for half in halves for part in _split_to_fit(half, max_tokens, limit)]
