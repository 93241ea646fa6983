"""What is worth knowing of a corpus before a model is trained on it.

An error makes an evaluation invalid or training hopeless; a warning wants a look; the rest is for the report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from domainclip.data.checks import captions, images, leakage, structure
from domainclip.data.checks.findings import Finding, levelled
from domainclip.data.corpus import Corpus

SAMPLE = 2048  # pictures that are looked at before a training; `domainclip data check` looks at all


def check(
    corpus: Corpus,
    count_tokens: Callable[[list[str]], Sequence[int]] | None,
    batch_size: int,
    *,
    max_tokens: int = 77,
    augmentation: str = "none",
    side: int | None = None,
    sample: int | None = SAMPLE,
    workers: int = 0,
    embed: Callable[[list[dict[str, Any]]], np.ndarray] | None = None,
) -> list[Finding]:
    """All findings, errors first.

    `count_tokens` gives the length of each text before it is truncated to `max_tokens`; `side` is that of
    the pictures that the base takes; `sample` pictures are decoded, None: every one, by `workers` processes;
    `embed` gives embeddings (n, d) of pictures, a witness where two are nearly the same.
    """
    card = corpus.card.checks
    found = [*structure.sizes(corpus), *leakage.groups(corpus), *leakage.pictures(corpus)]
    found += [*structure.classes(corpus), *captions.repeated(corpus, batch_size)]
    if count_tokens is not None and len(corpus.splits["train"]):
        found += captions.truncated(corpus, count_tokens, max_tokens)
        found += captions.scripts(corpus, count_tokens, max_tokens)
    found += captions.laterality(corpus, augmentation)
    seen = images.see(corpus, sample, workers)
    found += [*images.unreadable(seen), *images.blank(seen), *images.sizes(seen, side)]
    files = sorted(images.dicom_files(corpus))
    found += [*images.decoders(files), *images.burned_in(corpus, files)]
    if card.near_duplicates != "off":
        found += leakage.near_duplicates(corpus, seen, embed, workers)
    return levelled(found, card)
