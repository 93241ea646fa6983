"""What an item may show in training, and what of it an epoch shows: a pure function of the seed and both.

A draw chooses between captions of the corpus, offline rewrites and captions made of the labels; then the
language; then one of its captions; then a sentence or a window of it. All of that is one list of texts with
a probability each, made once, so that pairs that may say the same are known beforehand.
"""

from __future__ import annotations

import json
from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from typing import TYPE_CHECKING

from domainclip import seeding
from domainclip.data.text.captions import REWRITES
from domainclip.data.text.languages import UNSPACED, script
from domainclip.data.text.sentences import split_sentences

if TYPE_CHECKING:
    from datasets import Dataset

    from domainclip.data.text.captions import Captions


@dataclass(frozen=True)
class TokenLimit:
    """How much of a text the base reads."""

    count_tokens: Callable[[list[str]], Sequence[int]]  # before truncation, special tokens included
    max_tokens: int


@dataclass(frozen=True)
class CaptionPool:
    """All that an item may show, and how often each is shown; None: all alike."""

    texts: list[str]
    probabilities: list[float] | None = None


def caption_pools(items: Dataset, how: Captions, fit: TokenLimit | None = None) -> list[CaptionPool]:
    """For each training item, what the epochs draw from; `fit` is needed for windows only."""
    texts, languages, labels, meta = (items[name][:] for name in ("texts", "language", "labels", "meta"))
    rows = zip(texts, languages, labels, meta, strict=True)
    return [_pool(*row, how, fit) for row in rows]


def choose_caption(pool: CaptionPool, seed: int, epoch: int, item: int | str) -> int:
    """Which text of its pool an item shows in an epoch."""
    if pool.probabilities is None:
        return seeding.choose(seed, epoch, item, len(pool.texts))
    at = seeding.stable(seed, epoch, item, "caption") / 2**64
    return min(bisect(list(accumulate(pool.probabilities)), at), len(pool.texts) - 1)


def caption_segments(text: str, how: Captions) -> list[str]:
    """What one caption may be shown as, before it is cut to what the base reads: its sentences, or itself."""
    return (split_sentences(text) or [text]) if how.policy == "sentence" else [text]


def _pool(
    texts: list[str],
    languages: list[str],
    labels: list[str],
    meta: str,
    how: Captions,
    fit: TokenLimit | None,
) -> CaptionPool:
    # A reader of someone else's may name no languages.
    own = _drawn(dict(zip_longest(texts, languages[: len(texts)], fillvalue="")), how)
    reworded = _drawn(dict(json.loads(meta).get(REWRITES, ())), how) if how.rewrites else {}
    whole = _in_pieces(_mixed(own, reworded, how.rewrite_share), how, fit)
    mixed = _mixed(whole, _made(labels, how), how.template_share)
    shares = list(mixed.values())
    # Equal shares are drawn as a plain choice, the same as where no share was ever named.
    return CaptionPool(
        list(mixed) or [""], None if not shares or max(shares) - min(shares) < 1e-9 else shares
    )


def _mixed(one: dict[str, float], other: dict[str, float], share: float) -> dict[str, float]:
    """Both, the other with its share; what there is not leaves its share to what there is."""
    if not one or not other:
        return one or other
    mixed = {text: (1 - share) * one.get(text, 0) + share * other.get(text, 0) for text in (one | other)}
    return {text: p for text, p in mixed.items() if p > 0}


def _drawn(texts: Mapping[str, str], how: Captions) -> dict[str, float]:
    """Each text with its share: the language first, then one of its texts, the first under policy head."""
    by: defaultdict[str, list[str]] = defaultdict(list)
    for text, language in texts.items():
        if text:
            by["" if how.languages == "natural" else language].append(text)
    weights = {
        language: how.languages.get(language, 0.0) if isinstance(how.languages, dict) else 1.0
        for language in by
    }
    if not sum(weights.values()):  # it speaks none of those: better another language than nothing
        weights = dict.fromkeys(by, 1.0)
    shares: dict[str, float] = {}
    for language, own in by.items():
        own = own[:1] if how.policy == "first" else own
        shares |= {text: weights[language] / sum(weights.values()) / len(own) for text in own}
    return {text: share for text, share in shares.items() if share > 0}


def _made(labels: Sequence[str], how: Captions) -> dict[str, float]:
    """Captions made of the labels, each alike [arXiv:2412.10372]."""
    said = [
        template.replace("{}", label)
        for label in labels
        for template in (how.templates if isinstance(how.templates, list) else how.templates.get(label, []))
    ]
    return {text: 1 / len(set(said)) for text in said}


def _in_pieces(texts: dict[str, float], how: Captions, fit: TokenLimit | None) -> dict[str, float]:
    """The share of each text spread over what it may be shown as: its sentences, or the windows that fit."""
    spread: defaultdict[str, float] = defaultdict(float)
    for text, share in texts.items():
        own = caption_segments(text, how)
        if how.overlong == "window" and fit is not None:
            own = list(dict.fromkeys(window for one in own for window in _windows(one, how, fit)))
        for piece in own:
            spread[piece] += share / len(own)
    return dict(spread)


def _windows(text: str, how: Captions, fit: TokenLimit) -> list[str]:
    """Runs of whole sentences that fit, from each sentence on as far as they reach; none inside another."""
    room = min(fit.max_tokens, how.max_tokens or fit.max_tokens)
    special = fit.count_tokens([""])[0]
    if fit.count_tokens([text])[0] <= room:
        return [text]
    units = [part for one in split_sentences(text) or [text] for part in _parts(one, room, fit)]
    lengths = [n - special for n in fit.count_tokens(units)]
    found, reached = [], 0
    for start in range(len(units)):
        end, used = start, special
        while end < len(units) and (end == start or used + lengths[end] <= room):
            used += lengths[end]
            end += 1
        if end > reached:
            found.append(("" if script(text) in UNSPACED else " ").join(units[start:end]))
            reached = end
    return found


def _parts(text: str, room: int, fit: TokenLimit) -> list[str]:
    """A sentence that is too long by itself, halved between words until each part fits."""
    if fit.count_tokens([text])[0] <= room or len(text) < 2:
        return [text]
    words = text.split()
    if len(words) > 1:
        halves = [" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])]
    else:  # a script without spaces
        halves = [text[: len(text) // 2], text[len(text) // 2 :]]
    return [part for half in halves for part in _parts(half, room, fit)]
