"""What is worth knowing of a corpus before a model is trained on it.

An error makes an evaluation invalid or training hopeless; a warning wants a look; the rest is for the report.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from domainclip.contracts import SPLITS
from domainclip.data import splits
from domainclip.data.captions import normalise
from domainclip.data.corpus import LoadedCorpus
from domainclip.data.images import decode
from domainclip.data.quarantine import Bad, counts
from domainclip.data.unreadable import UnreadableImage
from domainclip.errors import DataError, did_you_mean

_WHOLE = 2**17  # up to this size, the digest of a loaded corpus covers the whole file


@dataclass(frozen=True)
class Finding:
    """One thing found, in one line."""

    level: Literal["error", "warning", "info"]
    text: str


def check(
    corpus: LoadedCorpus,
    count_tokens: Callable[[list[str]], Sequence[int]] | None,
    batch_size: int,
    *,
    max_tokens: int = 77,
    sample: int | None = 512,
) -> list[Finding]:
    """All findings, errors first. `sample` pictures of the corpus are decoded; None: every one.

    `count_tokens` gives the length of each text before it is truncated to `max_tokens`.
    """
    found = [*_sizes(corpus), *_leaks(corpus), *_same_pictures(corpus), *_names_of_classes(corpus)]
    found += _repeated_captions(corpus, batch_size)
    if count_tokens is not None:
        found += _truncation(corpus, count_tokens, max_tokens)
    found += _pictures(corpus, sample)
    return sorted(found, key=lambda finding: ("error", "warning", "info").index(finding.level))


def refuse(found: Sequence[Finding]) -> None:
    """Stops on errors.

    Raises: DataError with the first error, and how many more there are.
    """
    errors = [finding.text for finding in found if finding.level == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise DataError(f"corpus: {errors[0]}{more}")


def same_caption_pairs(texts: Sequence[Sequence[str]], batch_size: int) -> float:
    """How many pairs of a batch have the same caption, in expectation.

    Item i shows caption k with probability p_ik (one of its m captions, each 1/m), and two items stand
    in a batch of b out of n together with probability b(b-1) / n(n-1), so the sum over unordered pairs is
    b(b-1) / n(n-1) * ½ Σ_k [(Σ_i p_ik)² - Σ_i p_ik²].
    """
    n, b = len(texts), min(batch_size, len(texts))
    if n < 2:
        return 0.0
    total: defaultdict[str, float] = defaultdict(float)
    squares: defaultdict[str, float] = defaultdict(float)
    for own in texts:
        for text, times in Counter(map(normalise, own)).items():
            total[text] += times / len(own)
            squares[text] += (times / len(own)) ** 2
    return b * (b - 1) / (n * (n - 1)) * sum(total[k] ** 2 - squares[k] for k in total) / 2


def _sizes(corpus: LoadedCorpus) -> Iterator[Finding]:
    parts = []
    for name in SPLITS:
        groups = Counter(corpus.splits[name]["group"][:])
        parts.append(f"{name} {len(corpus.splits[name])} items of {len(groups)} groups")
        largest = max(groups.values(), default=0)
        if len(corpus.splits[name]) >= 20 and largest > len(corpus.splits[name]) / 2:
            yield Finding(
                "warning",
                f"one group holds {largest} of {len(corpus.splits[name])} items of {name}: is "
                "corpus.columns.group the right column?",
            )
    yield Finding("info", "; ".join(parts))
    if not len(corpus.splits["test"]):
        yield Finding("warning", "the test split is empty: there is nothing to measure on")
    if corpus.quarantine:
        yield Finding("warning", f"left out: {counts(corpus.quarantine)}")


def _leaks(corpus: LoadedCorpus) -> Iterator[Finding]:
    groups = {name: corpus.splits[name]["group"][:] for name in SPLITS}
    text = splits.leak(groups, {name: _places(corpus, name) for name in SPLITS})
    if text:
        yield Finding("error", text)


def _places(corpus: LoadedCorpus, split: str) -> list[str]:
    # By id, not by position: curation may have taken rows out since the corpus was read.
    return [corpus.places.get(id, f"item {id}") for id in corpus.splits[split]["id"][:]]


def _same_pictures(corpus: LoadedCorpus) -> Iterator[Finding]:
    """Pictures that are byte for byte the same in two splits."""
    where: dict[str, dict[str, int]] = {}
    for name in SPLITS:
        for row, id in enumerate(corpus.splits[name]["id"][:]):
            where.setdefault(corpus.digests.get(id, id), {}).setdefault(name, row)
    for first, second in combinations(SPLITS, 2):
        both = [held for held in where.values() if first in held and second in held]
        same = [h for h in both if _sha256(corpus, first, h[first]) == _sha256(corpus, second, h[second])]
        if same:
            one, other = (_places(corpus, split)[same[0][split]] for split in (first, second))
            yield Finding(
                "error",
                f"the same picture in two splits: {len(same)} in {first} and {second}; one of them: {one}, "
                f"{other}; give such rows one group, or leave one out",
            )


def _sha256(corpus: LoadedCorpus, split: str, row: int) -> str:
    item: dict[str, Any] = corpus.splits[split][row]
    data: bytes | None = item["image"]["bytes"]
    if data is None and Path(item["image"]["path"]).stat().st_size <= _WHOLE:
        return corpus.digests[item["id"]]
    return hashlib.sha256(Path(item["image"]["path"]).read_bytes() if data is None else data).hexdigest()


def _names_of_classes(corpus: LoadedCorpus) -> Iterator[Finding]:
    if not corpus.card.classes:
        return
    tally = Counter(
        label for name in SPLITS for labels in corpus.splits[name]["labels"][:] for label in labels
    )
    unknown = sorted(set(tally) - set(corpus.card.classes))
    if unknown:
        # In a column that was mistaken for another, a class may be a patient's name.
        near = f': "{unknown[0]}", {did_you_mean(unknown[0], corpus.card.classes)}'
        yield Finding(
            "warning",
            f"{sum(tally[label] for label in unknown)} labels name no class of the card"
            + (near if corpus.card.names_may_show else ""),
        )
    for name in sorted(set(corpus.card.classes) - set(tally)):
        yield Finding("warning", f'no item has the class "{name}" of the card')


def _repeated_captions(corpus: LoadedCorpus, batch_size: int) -> Iterator[Finding]:
    texts = corpus.splits["train"]["texts"][:]
    tally = Counter(normalise(text) for own in texts for text in own)
    repeated = sum(n for n in tally.values() if n > 1)
    if not repeated:
        return
    b = min(batch_size, len(texts))
    pairs = same_caption_pairs(texts, batch_size)
    yield Finding(
        "warning" if pairs > 0.05 * b * (b - 1) / 2 else "info",
        f"{repeated} of {tally.total()} training captions repeat; on average {pairs:.1f} of the "
        f"{b * (b - 1) // 2} pairs in a batch of {b} have the same caption: they are never negatives",
    )


def _truncation(
    corpus: LoadedCorpus, count_tokens: Callable[[list[str]], Sequence[int]], max_tokens: int
) -> Iterator[Finding]:
    by_language: defaultdict[str, set[str]] = defaultdict(set)
    train = corpus.splits["train"]
    for own, spoken in zip(train["texts"][:], train["language"][:], strict=True):
        for text, language in zip(own, spoken, strict=True):
            by_language[language].add(text)
    for language, texts in sorted(by_language.items()):
        lengths = np.asarray(count_tokens(sorted(texts)))
        share = float((lengths > max_tokens).mean())
        said = f" in {language}" if len(by_language) > 1 and language else ""
        yield Finding(
            "warning" if share > 0.05 else "info",
            f"{share:.1%} of the distinct training captions{said} are cut at {max_tokens} tokens; 95 % have "
            f"at most {np.quantile(lengths, 0.95, method='higher')}",
        )


def _pictures(corpus: LoadedCorpus, sample: int | None) -> Iterator[Finding]:
    """Faults and blank pictures in a sample that is spread evenly over the corpus."""
    rows = [(name, row, place) for name in SPLITS for row, place in enumerate(_places(corpus, name))]
    if sample is not None and len(rows) > sample:
        rows = [rows[i * len(rows) // sample] for i in range(sample)]
    bad, blank = [], []
    for name, row, place in rows:
        try:
            # A thumbnail is enough to see that nothing is there.
            picture = decode(corpus.splits[name][row]["image"]).reduce(4).convert("L")
        except UnreadableImage as error:
            bad.append(Bad(place, error.reason, error.name))
            continue
        low, high = picture.getextrema()
        if float(high) - float(low) <= 2:  # type: ignore[arg-type]
            blank.append(place)
    seen = f"{len(rows)} pictures" + ("" if sample is None or len(rows) < sample else " looked at")
    if bad:
        first = ", ".join(f"{item.place} ({item.reason})" for item in bad[:5])
        yield Finding(
            "error" if len(bad) > corpus.card.max_bad * len(rows) else "warning",
            f"{len(bad)} of {seen} cannot be read ({len(bad) / len(rows):.1%}, limit "
            f"{corpus.card.max_bad:.1%}): {counts(bad)}; first: {first}; mend them or raise corpus.max_bad",
        )
    if blank:
        yield Finding("warning", f"{len(blank)} of {seen} are blank; first: {', '.join(blank[:5])}")
