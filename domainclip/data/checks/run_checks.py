"""All checks of a corpus, run in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from domainclip.data.checks import captions, images, leakage, structure
from domainclip.data.checks.findings import Finding, apply_card_levels
from domainclip.data.corpus import Corpus

SAMPLE_IMAGES = 2048  # pictures that are looked at before a training; `domainclip data check` looks at all


def corpus_findings(
    corpus: Corpus,
    count_tokens: Callable[[list[str]], Sequence[int]] | None,
    batch_size: int,
    *,
    max_tokens: int = 77,
    augmentation: str = "none",
    side: int | None = None,
    sample: int | None = SAMPLE_IMAGES,
    workers: int = 0,
    embed: Callable[[list[dict[str, Any]]], np.ndarray] | None = None,
) -> list[Finding]:
    """All findings, errors first.

    `count_tokens` gives the length of each text before it is truncated to `max_tokens`; `side` is that of
    the pictures that the base takes; `sample` pictures are decoded, None: every one, by `workers` processes;
    `embed` gives embeddings (n, d) of pictures, a witness where two are nearly the same.
    """
    card = corpus.card.checks
    found = [
        *structure.split_sizes(corpus),
        *leakage.shared_groups(corpus),
        *leakage.identical_images(corpus),
    ]
    found += [*structure.class_coverage(corpus), *captions.repeated_captions(corpus, batch_size)]
    if count_tokens is not None and len(corpus.splits["train"]):
        found += captions.truncated_captions(corpus, count_tokens, max_tokens)
        found += captions.split_scripts(corpus, count_tokens, max_tokens)
    found += captions.mirrored_laterality(corpus, augmentation)
    seen = images.inspect_corpus(corpus, sample, workers)
    found += [*images.unreadable_images(seen), *images.blank_images(seen), *images.image_sizes(seen, side)]
    files = sorted(images.dicom_files(corpus))
    found += [*images.missing_decoders(files), *images.burned_in_text(corpus, files)]
    if card.near_duplicates != "off":
        found += leakage.near_duplicate_images(corpus, seen, embed, workers)
    return apply_card_levels(found, card)
