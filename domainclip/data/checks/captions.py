"""Captions: repeated, cut, split into bytes, and speaking of a side that a mirror would swap."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from domainclip.data.batching import caption_sampling
from domainclip.data.checks import laterality as checks_laterality
from domainclip.data.checks.findings import MAX_PLACES, Finding
from domainclip.data.corpus import Corpus
from domainclip.data.schema import SPLITS
from domainclip.data.text import captions, languages
from domainclip.data.text.captions import normalise

_MAX_TRUNCATED = 0.05  # of the captions: above it, the base loses what they end with
_MAX_SAME_CAPTION = 0.05  # of the pairs of a batch


def same_caption_pairs(
    texts: Sequence[Sequence[str]], batch_size: int, shares: Sequence[Sequence[float] | None] | None = None
) -> float:
    """How many pairs of a batch have the same caption, in expectation.

    Item i shows caption k with probability p_ik (1/m each of its m captions, without shares), and two items
    stand in a batch of b out of n together with probability b(b-1) / n(n-1), so the sum over unordered pairs
    is b(b-1) / n(n-1) * ½ Σ_k [(Σ_i p_ik)² - Σ_i p_ik²].
    """
    n, b = len(texts), min(batch_size, len(texts))
    if n < 2:
        return 0.0
    total: defaultdict[str, float] = defaultdict(float)
    squares: defaultdict[str, float] = defaultdict(float)
    for own, stated in zip(texts, shares or [None] * n, strict=True):
        shown: defaultdict[str, float] = defaultdict(float)
        for text, share in zip(own, stated or [1 / max(1, len(own))] * len(own), strict=True):
            shown[normalise(text)] += share
        for text, share in shown.items():
            total[text] += share
            squares[text] += share**2
    return b * (b - 1) / (n * (n - 1)) * sum(total[k] ** 2 - squares[k] for k in total) / 2


def repeated_captions(corpus: Corpus, batch_size: int) -> Iterator[Finding]:
    """Training captions that occur again, and how many such pairs meet in a batch."""
    shown = caption_sampling.caption_pools(
        corpus.splits["train"], corpus.card.captions
    )  # what training says, not what it reads
    texts = [pool.texts for pool in shown]
    tally = Counter(normalise(text) for own in texts for text in own)
    number = sum(n for n in tally.values() if n > 1)
    if not number:
        return
    b = min(batch_size, len(texts))
    pairs = same_caption_pairs(texts, batch_size, [pool.probabilities for pool in shown])
    yield Finding(
        "warning" if pairs > _MAX_SAME_CAPTION * b * (b - 1) / 2 else "info",
        f"{number} of {tally.total()} training captions repeat; on average {pairs:.1f} of the "
        f"{b * (b - 1) // 2} pairs in a batch of {b} have the same caption: they are never negatives",
        "repeated_captions",
        number,
    )


def truncated_captions(
    corpus: Corpus, count_tokens: Callable[[list[str]], Sequence[int]], max_tokens: int
) -> Iterator[Finding]:
    """How much of what training says the base does not read, by language."""
    by_language: defaultdict[str, set[str]] = defaultdict(set)
    for _, text, language in training_texts(corpus, caption_sampling.TokenLimit(count_tokens, max_tokens)):
        by_language[language].add(text)
    for language, texts in sorted(by_language.items()):
        lengths = np.asarray(count_tokens(sorted(texts)))
        share = float((lengths > max_tokens).mean())
        said = f" in {language}" if len(by_language) > 1 and language else ""
        yield Finding(
            "warning" if share > _MAX_TRUNCATED else "info",
            f"{share:.1%} of the distinct training captions{said} are cut at {max_tokens} tokens; 95 % have "
            f"at most {np.quantile(lengths, 0.95, method='higher')}",
            "truncated_captions",
            int((lengths > max_tokens).sum()),
        )


def split_scripts(
    corpus: Corpus, count_tokens: Callable[[list[str]], Sequence[int]], max_tokens: int
) -> Iterator[Finding]:
    """Scripts that the tokeniser of the base splits into bytes."""
    pairs = list(captions_with_language(corpus))
    rows = languages.profile_captions([t for t, _ in pairs], [s for _, s in pairs], count_tokens, max_tokens)
    for line in languages.tokenizer_warnings(rows):
        yield Finding("warning", line, "split_script")


def mirrored_laterality(corpus: Corpus, augmentation: str) -> Iterator[Finding]:
    """Captions that say left or right, when training mirrors the pictures: of patients, an error."""
    if not augmentation.endswith("flip"):
        return
    said, of = 0, 0
    where: dict[str, None] = {}
    for id, text, language in training_texts(corpus):
        of += 1
        if checks_laterality.names_side(text, language):
            said += 1
            where[corpus.locations.get(id, f"item {id}")] = None
    if said:
        patients = not corpus.card.names_may_show or corpus.card.reader == "dicom"
        yield Finding(
            "error" if patients else "warning",
            f"train.augmentation={augmentation} mirrors pictures, and {said} of {of} training captions say "
            f"left or right; first: {', '.join([*where][:MAX_PLACES])}; take train.augmentation=crop",
            "laterality",
            said,
            tuple([*where][:MAX_PLACES]),
        )


def training_texts(
    corpus: Corpus, fit: caption_sampling.TokenLimit | None = None
) -> Iterator[tuple[str, str, str]]:
    """The id of a training item, each text that training draws from for it, and its language, or ""."""
    items, how = corpus.splits["train"], corpus.card.captions
    columns = (items[name][:] for name in ("id", "texts", "language", "meta"))
    alone = corpus.card.language[0] if len(corpus.card.language) == 1 else ""
    for pool, id, texts, tongues, meta in zip(
        caption_sampling.caption_pools(items, how, fit), *columns, strict=True
    ):
        told = [*json.loads(meta).get(captions.REWRITES, ()), *zip(texts, tongues, strict=False)]
        said = [(" ".join(text.split()), tongue) for text, tongue in told]
        for text in filter(None, pool.texts):
            # A sentence or a window is part of a caption; what is made of labels is of the card's language.
            part = " ".join(text.split())
            yield id, text, next((tongue for whole, tongue in said if part in whole), alone)


def captions_with_language(corpus: Corpus, split: str = "train") -> Iterator[tuple[str, str]]:
    """The captions of a split, each with its language, "" when unknown."""
    rows = corpus.splits[split]
    for own, tongues in zip(rows["texts"][:], rows["language"][:], strict=True):
        yield from zip(own, tongues, strict=True)


def caption_counts(corpus: Corpus) -> dict[str, int]:
    """split -> captions."""
    return {name: sum(map(len, corpus.splits[name]["texts"][:])) for name in SPLITS}
