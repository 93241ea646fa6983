"""Checks of captions: repeated, truncated, split into bytes by the tokenizer, or wrong when mirrored."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import repeat, tee
from typing import Any

import numpy as np
from datasets import Dataset

from domainclip.data.batching import caption_sampling
from domainclip.data.batching.item_columns import derived_column
from domainclip.data.batching.matches import why_no_negatives
from domainclip.data.checks import laterality
from domainclip.data.checks.findings import MAX_LOCATIONS, Finding
from domainclip.data.corpus import Corpus
from domainclip.data.schema import SPLITS
from domainclip.data.text import captions, languages
from domainclip.data.text.captions import normalise

_MAX_TRUNCATED = 0.05  # share of captions, above which truncation is a warning
_MAX_RIGHT = 0.05  # share of the other texts of a batch that are right for an image, above which it warns


def right_text_share(
    texts: Iterable[Sequence[str]],
    groups: Sequence[str],
    shares: Iterable[Sequence[float] | None] | None = None,
    repeated: Container[int] | None = None,
) -> float:
    """The probability that the text of another random pair is right for an image, as `Matches` defines it.

    Item i is drawn with caption k with probability p_ik (1/m for each of its m captions, without `shares`).
    The text of j is right for another image i of n when both are of one group, or when caption k of j is a
    caption of i: 1/n(n-1) [Σ_g n_g (n_g - 1) + Σ_k (S_k N_k - Σ_g S_kg N_kg)], with n_g the items of a group,
    S the sum of p_ik over items and N the number of items that have the caption, of all and of one group. A
    caption of one item adds nothing: with `repeated`, hashes of normalised captions, only those are counted.
    """
    n = len(groups)
    if n < 2:
        return 0.0
    drawn: Counter[tuple[str, str | None]] = Counter()  # S, by caption and group; None: of all groups
    items: Counter[tuple[str, str | None]] = Counter()  # N
    for captions_of_item, group, item_shares in zip(texts, groups, shares or repeat(None, n), strict=True):
        m = len(captions_of_item)
        probabilities: defaultdict[str, float] = defaultdict(float)
        for text, share in zip(captions_of_item, item_shares or [1 / max(1, m)] * m, strict=True):
            probabilities[normalise(text)] += share
        for text, share in probabilities.items():
            if text and (repeated is None or hash(text) in repeated):
                drawn.update({(text, None): share, (text, group): share})
                items.update([(text, None), (text, group)])
    in_group = sum(size * (size - 1) for size in Counter(groups).values())
    by_caption = sum((1 if key[1] is None else -1) * drawn[key] * items[key] for key in drawn)
    return (in_group + by_caption) / (n * (n - 1))


def repeated_captions(corpus: Corpus, batch_size: int) -> Iterator[Finding]:
    """Training captions that occur more than once, and how many texts of a batch are right for an image."""
    # All that training draws from, without the limit of tokens.
    pools = caption_sampling.caption_pools(corpus.splits["train"], corpus.card.captions)
    # By 64 bits of each: the captions themselves would take hundreds of bytes a pair.
    hashes = np.fromiter((hash(normalise(text)) for pool in pools for text in pool.texts), np.int64)
    values, counts = np.unique(hashes, return_counts=True)
    number = int(counts[counts > 1].sum())
    if not number:
        return
    others = min(batch_size, len(pools)) - 1
    groups = derived_column(corpus.splits["train"], [corpus.card.columns.matched_by], str)
    shown, weighted = tee(pools)
    share = right_text_share(
        (pool.texts for pool in shown),
        groups,
        (pool.probabilities for pool in weighted),
        frozenset(values[counts > 1].tolist()),
    )
    yield Finding(
        "warning" if share > _MAX_RIGHT else "info",
        f"{number} of {len(hashes)} training captions repeat; on average {share * others:.1f} of the "
        f"{others} other texts in a batch of {others + 1} are right for an image too: they are "
        "not its negatives",
        "repeated_captions",
        number,
    )


def no_negatives(corpus: Corpus) -> Iterator[Finding]:
    """Training items none of which can be a negative of another: an objective that compares pairs refuses."""
    items = corpus.splits["train"]
    if not len(items):
        return
    pools = caption_sampling.caption_pools(items, corpus.card.captions)
    groups = derived_column(items, [corpus.card.columns.matched_by], str)
    reason = why_no_negatives((pool.texts for pool in pools), groups)
    if reason:
        yield Finding(
            "warning",
            f"{reason}, so no pair has a negative and a contrastive objective learns nothing: check "
            "corpus.columns (texts, group) and the training split",
            "no_negatives",
            len(items),
        )


def truncated_captions(
    corpus: Corpus,
    count_tokens: Callable[[list[str]], Sequence[int]],
    max_tokens: int,
    sample: int | None = None,
) -> Iterator[Finding]:
    """The share of training captions that the base truncates, by language, of `sample` items or of all."""
    by_language: defaultdict[str, set[str]] = defaultdict(set)
    limit = caption_sampling.TokenLimit(count_tokens, max_tokens)
    for _, text, language in training_texts(corpus, limit, sample):
        by_language[language].add(text)
    items = corpus.splits["train"]
    sampled = sample is not None and len(items) > sample
    of_items = f" of {sample} of {len(items)} items" if sampled else ""
    for language, texts in sorted(by_language.items()):
        lengths = np.asarray(count_tokens(sorted(texts)))
        share = float((lengths > max_tokens).mean())
        in_language = f" in {language}" if len(by_language) > 1 and language else ""
        yield Finding(
            "warning" if share > _MAX_TRUNCATED else "info",
            f"{share:.1%} of the distinct training captions{of_items}{in_language} are truncated to "
            f"{max_tokens} tokens; 95 % have at most {np.quantile(lengths, 0.95, method='higher')}",
            "truncated_captions",
            int((lengths > max_tokens).sum()),
        )


def split_scripts(
    corpus: Corpus,
    count_tokens: Callable[[list[str]], Sequence[int]],
    max_tokens: int,
    sample: int | None = None,
) -> Iterator[Finding]:
    """Scripts that the base's tokenizer splits into bytes, in the captions of `sample` training items."""
    pairs = list(captions_with_language(corpus, sample=sample))
    rows = languages.profile_captions([t for t, _ in pairs], [s for _, s in pairs], count_tokens, max_tokens)
    for line in languages.tokenizer_warnings(rows):
        yield Finding("warning", line, "split_script")


def mirrored_laterality(corpus: Corpus, augmentation: str) -> Iterator[Finding]:
    """Captions that name left or right, if training mirrors the images; an error for patients."""
    if not augmentation.endswith("flip"):
        return
    sided, total = 0, 0
    locations: dict[str, None] = {}
    for id, text, language in training_texts(corpus):
        total += 1
        if laterality.names_side(text, language):
            sided += 1
            locations[corpus.locations.get(id, f"item {id}")] = None
    if sided:
        patients = not corpus.card.names_may_show or corpus.card.reader == "dicom"
        where = tuple(locations)
        yield Finding(
            "error" if patients else "warning",
            f"train.augmentation={augmentation} mirrors images, but {sided} of {total} training captions "
            f"name left or right; first: {', '.join(where[:MAX_LOCATIONS])}; use train.augmentation=crop",
            "laterality",
            sided,
            where,
        )


def training_texts(
    corpus: Corpus, fit: caption_sampling.TokenLimit | None = None, sample: int | None = None
) -> Iterator[tuple[str, str, str]]:
    """For each text that training draws: the item's id, the text, and its language, "" if unknown.

    Of `sample` items at equal distances; None: of all.
    """
    items, settings = _sampled(corpus.splits["train"], sample), corpus.card.captions
    rows = derived_column(items, ["id", "texts", "language", "meta"], _values)
    single_language = corpus.card.language[0] if len(corpus.card.language) == 1 else ""
    pools = caption_sampling.caption_pools(items, settings, fit)
    for pool, (id, texts, codes, meta) in zip(pools, rows, strict=True):
        sources = [*json.loads(meta).get(captions.REWRITES, ()), *zip(texts, codes, strict=False)]
        sources = [(" ".join(text.split()), code) for text, code in sources]
        for text in filter(None, pool.texts):
            # A sentence or a window is part of a caption; a text made from labels has the card's language.
            part = " ".join(text.split())
            yield id, text, next((code for source, code in sources if part in source), single_language)


def captions_with_language(
    corpus: Corpus, split: str = "train", sample: int | None = None
) -> Iterator[tuple[str, str]]:
    """The captions of a split, or of `sample` of its items, each with its language, "" if unknown."""
    items = _sampled(corpus.splits[split], sample)
    for texts, codes in derived_column(items, ["texts", "language"], _values):
        yield from zip(texts, codes, strict=True)


def _values(*values: Any) -> tuple[Any, ...]:
    return values


def _sampled(items: Dataset, sample: int | None) -> Dataset:
    """At most `sample` items, at equal distances."""
    if sample is None or len(items) <= sample:
        return items
    return items.select([row * len(items) // sample for row in range(sample)])


def caption_counts(corpus: Corpus) -> dict[str, int]:
    """split -> number of captions."""
    return {name: sum(derived_column(corpus.splits[name], ["texts"], len)) for name in SPLITS}
