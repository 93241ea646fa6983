"""All checks of a corpus, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from domainclip.data.checks import (
    captions,
    class_names,
    identifiers,
    image_levels,
    images,
    leakage,
    structure,
    tangled,
)
from domainclip.data.checks.findings import Finding, apply_card_levels
from domainclip.data.corpus import Corpus

SAMPLE_IMAGES = 2048  # inspected before a training; `domainclip data check` inspects all
SAMPLE_CAPTIONS = 20_000  # training items whose captions are tokenized before a training


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

    `count_tokens` returns the length of each text before truncation to `max_tokens`; `side` is the image size
    of the base in pixels; `sample` images are decoded by `workers` processes, and the captions of
    SAMPLE_CAPTIONS items tokenized (None: all of both); `embed` returns embeddings (n, d) of images, which
    decide doubtful near-duplicates.
    """
    findings = [
        *structure.split_sizes(corpus),
        *leakage.shared_groups(corpus),
        *leakage.identical_images(corpus),
        *structure.class_coverage(corpus),
        *class_names.class_names(corpus),
        *structure.unusable_attributes(corpus),
        *tangled.tangled_source(corpus),
        *captions.no_negatives(corpus),
        *captions.repeated_captions(corpus, batch_size),
    ]
    if count_tokens is not None and len(corpus.splits["train"]):
        of_items = None if sample is None else SAMPLE_CAPTIONS
        count = _Lengths(count_tokens)
        findings += captions.truncated_captions(corpus, count, max_tokens, of_items)
        findings += captions.split_scripts(corpus, count, max_tokens, of_items)
    findings += captions.mirrored_laterality(corpus, augmentation)
    findings += identifiers.captions_with_identifiers(corpus)
    inspected = images.inspect_corpus(corpus, sample, workers)
    findings += images.unreadable_images(inspected)
    findings += images.blank_images(inspected)
    findings += [*image_levels.low_contrast(inspected), *image_levels.fits_planes(inspected)]
    findings += image_levels.decoder_messages(inspected)
    findings += images.image_sizes(inspected, side)
    findings += tangled.tangled_files(inspected)
    files = sorted(images.dicom_files(corpus))
    findings += [*images.missing_decoders(files), *images.unused_attributes(files)]
    findings += images.burned_in_text(corpus, files)
    if corpus.card.checks.near_duplicates != "off":
        findings += leakage.near_duplicate_images(corpus, inspected, embed, workers)
    return apply_card_levels(findings, corpus.card.checks)


class _Lengths:
    """The tokens of texts, each counted once for all checks."""

    def __init__(self, count_tokens: Callable[[list[str]], Sequence[int]]) -> None:
        self.count_tokens = count_tokens
        self.lengths: dict[str, int] = {}

    def __call__(self, texts: list[str]) -> list[int]:
        new = [text for text in dict.fromkeys(texts) if text not in self.lengths]
        if new:
            self.lengths |= zip(new, self.count_tokens(new), strict=True)
        return [self.lengths[text] for text in texts]
